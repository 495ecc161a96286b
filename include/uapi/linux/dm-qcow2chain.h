/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * dm-qcow2chain: the contract between the kernel target and user space.
 *
 * Two things are fixed here: the generic netlink family through which the
 * daemon serves misses, and the on-disk format of a tip.  Both are described
 * in prose in docs/uapi.md and docs/tip-format.md.
 *
 * Units: a sector is 512 bytes, whatever the devices below use.  Numbers in
 * netlink messages have host byte order, numbers on disk are little-endian.
 */
#ifndef _UAPI_LINUX_DM_QCOW2CHAIN_H
#define _UAPI_LINUX_DM_QCOW2CHAIN_H

#include <linux/types.h>

/* A miss is asked for in blocks of this many sectors (64 KiB). */
#define QC2_BLOCK_SECTORS	128

/* Length of the identity of a chain; see "chain id" in docs/uapi.md. */
#define QC2_CHAIN_ID_LEN	16

/* Greatest number of store devices in one table. */
#define QC2_MAX_STORES		128

/*
 * ---------------------------------------------------------------------------
 * Generic netlink
 * ---------------------------------------------------------------------------
 */
#define QC2_GENL_NAME		"qcow2chain"
#define QC2_GENL_VERSION	1

/**
 * enum qc2_cmd - operations of the family
 *
 * Every command needs CAP_SYS_ADMIN in the initial user namespace and works
 * in the initial network namespace only.
 *
 * @QC2_CMD_GET_DEVICES: dump.  One message for each live qcow2chain table:
 *	DEV, NAME, GENERATION, CHAIN_ID, SECTORS, OWNER (0: no daemon).
 * @QC2_CMD_REGISTER: do; DEV.  The sending socket becomes the daemon of that
 *	mapped device until it is closed.  -EBUSY while another one is; doing
 *	so twice is no error.
 * @QC2_CMD_UNREGISTER: do; DEV.  Gives the device up; its requests wait.
 * @QC2_CMD_GET_PENDING: dump; DEV, flag RESEND.  One message for each request
 *	that was not handed out yet: DEV, GENERATION, ID, SECTOR, SECTORS, and
 *	FAILED_STORE if a read of the block has failed there: what was replied
 *	before is bad, and is wanted from elsewhere.  A request may be handed out
 *	a second time when that happens.
 *	With RESEND the requests handed out before are new again.
 * @QC2_CMD_REPLY: do; DEV, GENERATION, then either RUNS, or ID and ERRNO.
 *	RUNS is an array of struct qc2_run, sorted, without overlap.  It needs
 *	no request: all of it goes into the map, and every read that waits for
 *	a part of it goes on.  ERRNO (a positive errno) fails the reads that
 *	wait for the request ID.
 * @QC2_CMD_FORGET: do; DEV, STORE, RANGES.  The map loses every run that lies,
 *	even in part, in these ranges of that store.  Returns after the last read
 *	in flight on any store of the device has ended, so the sectors can be
 *	written with other data then.  A table without that store is no error.
 * @QC2_CMD_DOORBELL: kernel to daemon; DEV.  There are new requests.  May be
 *	lost: the daemon also asks at start, after ENOBUFS and from time to
 *	time.
 */
enum qc2_cmd {
	QC2_CMD_UNSPEC,
	QC2_CMD_GET_DEVICES,
	QC2_CMD_REGISTER,
	QC2_CMD_UNREGISTER,
	QC2_CMD_GET_PENDING,
	QC2_CMD_REPLY,
	QC2_CMD_FORGET,
	QC2_CMD_DOORBELL,
	__QC2_CMD_MAX,
	QC2_CMD_MAX = __QC2_CMD_MAX - 1
};

/**
 * enum qc2_attr - attributes
 *
 * @QC2_ATTR_PAD: alignment only
 * @QC2_ATTR_DEV: u32, device number of the mapped device, (major << 20 | minor)
 * @QC2_ATTR_NAME: string, device-mapper name
 * @QC2_ATTR_GENERATION: u64, identifies one loaded table; never used twice
 * @QC2_ATTR_CHAIN_ID: 16 bytes, the chain id of the table
 * @QC2_ATTR_OWNER: u32, netlink port of the registered daemon, or 0
 * @QC2_ATTR_ID: u64, identifies one request within its generation
 * @QC2_ATTR_SECTOR: u64, first sector
 * @QC2_ATTR_SECTORS: u64, number of sectors
 * @QC2_ATTR_STORE: u32, index of a store device in the table
 * @QC2_ATTR_RUNS: array of struct qc2_run
 * @QC2_ATTR_ERRNO: u32, 1 to 4095
 * @QC2_ATTR_RESEND: flag
 * @QC2_ATTR_RANGES: array of struct qc2_range, sorted, without overlap
 * @QC2_ATTR_FAILED_STORE: u32, index of a store device that failed to be read
 */
enum qc2_attr {
	QC2_ATTR_UNSPEC,
	QC2_ATTR_PAD,
	QC2_ATTR_DEV,
	QC2_ATTR_NAME,
	QC2_ATTR_GENERATION,
	QC2_ATTR_CHAIN_ID,
	QC2_ATTR_OWNER,
	QC2_ATTR_ID,
	QC2_ATTR_SECTOR,
	QC2_ATTR_SECTORS,
	QC2_ATTR_STORE,
	QC2_ATTR_RUNS,
	QC2_ATTR_ERRNO,
	QC2_ATTR_RESEND,
	QC2_ATTR_RANGES,
	QC2_ATTR_FAILED_STORE,
	__QC2_ATTR_MAX,
	QC2_ATTR_MAX = __QC2_ATTR_MAX - 1
};

/* qc2_run.store of sectors that read as zeros */
#define QC2_STORE_ZERO		0xffffffffU

/**
 * struct qc2_run - where the chain's content of some sectors is
 * @sector: first sector of the run on the virtual disk
 * @nr_sectors: length; not 0
 * @store: index of a store device in the table, or QC2_STORE_ZERO
 * @store_sector: first sector on that device; 0 for QC2_STORE_ZERO
 */
struct qc2_run {
	__u64 sector;
	__u32 nr_sectors;
	__u32 store;
	__u64 store_sector;
};

/* Greatest number of runs in one reply. */
#define QC2_MAX_RUNS		2048

/**
 * struct qc2_range - sectors of a store device
 * @sector: the first one
 * @nr_sectors: their number; not 0.  May reach behind the end of the device
 */
struct qc2_range {
	__u64 sector;
	__u64 nr_sectors;
};

/* Greatest number of ranges in one command; the attribute is near its limit. */
#define QC2_MAX_RANGES		4000

/*
 * ---------------------------------------------------------------------------
 * Tip format, version 1 (docs/tip-format.md)
 *
 *	superblock 0 | superblock 1 | summary | journal | bitmap | data
 *
 * All offsets are in sectors from the start of the tip device and multiples
 * of QC2_TIP_BLOCK_SECTORS.  A bitmap holds one bit for each sector of the
 * virtual disk, 1 for "in the tip".  Bit n is bit (n % 8) of byte n / 8.
 * A summary holds one bit for each block of the bitmap; a bitmap block whose
 * bit is 0 is all zeros whatever the device holds there.  The journal names
 * ranges of sectors that are in the tip though the bitmap may not say so yet.
 * Sector s of the virtual disk is sector data_start + s of the tip device.
 * ---------------------------------------------------------------------------
 */
#define QC2_TIP_MAGIC		"QC2CHTIP"
#define QC2_TIP_MAGIC_LEN	8
#define QC2_TIP_VERSION		1

/* Metadata is read and written in blocks of this size. */
#define QC2_TIP_BLOCK_SIZE	4096
#define QC2_TIP_BLOCK_SECTORS	8
#define QC2_TIP_BLOCK_BITS	32768

/* Where the two copies of the superblock are. */
#define QC2_TIP_SB0_SECTOR	0
#define QC2_TIP_SB1_SECTOR	128

/* Data starts at a multiple of this (1 MiB). */
#define QC2_TIP_DATA_ALIGN	2048

/* Largest virtual disk: 64 TiB. */
#define QC2_TIP_MAX_SECTORS	(1ULL << 37)

/*
 * The journal is written in two halves by turns.  Its length is a multiple of
 * QC2_TIP_JOURNAL_ALIGN, and at most QC2_TIP_JOURNAL_MAX.
 */
#define QC2_TIP_JOURNAL_ALIGN	16
#define QC2_TIP_JOURNAL_MAX	65536

/* Bits of qc2_tip_super.incompat */
#define QC2_TIP_INCOMPAT_JOURNAL	(1ULL << 0)

/**
 * struct qc2_tip_super - superblock of a tip, one block long on disk
 * @magic: QC2_TIP_MAGIC
 * @version: QC2_TIP_VERSION; a greater one is refused
 * @checksum: CRC-32C (Castagnoli, initial value and final xor ~0) of the
 *	whole block with this field 0
 * @seq: of two valid copies the one with the greater number counts
 * @incompat: feature bits; an unknown one is refused
 * @compat: feature bits; an unknown one is ignored
 * @chain_id: the chain that the tip lies over
 * @nr_sectors: size of the virtual disk
 * @summary_start: first sector of the summary
 * @bitmap_start: first sector of the bitmap
 * @data_start: first sector of the data
 * @journal_start: first sector of the journal.  This and the next two fields
 *	are there with QC2_TIP_INCOMPAT_JOURNAL, else 0
 * @journal_sectors: its length
 * @tip_id: random number that its sectors bear
 * @reserved: zeros
 */
struct qc2_tip_super {
	__u8 magic[QC2_TIP_MAGIC_LEN];
	__le32 version;
	__le32 checksum;
	__le64 seq;
	__le64 incompat;
	__le64 compat;
	__u8 chain_id[QC2_CHAIN_ID_LEN];
	__le64 nr_sectors;
	__le64 summary_start;
	__le64 bitmap_start;
	__le64 data_start;
	__le64 journal_start;
	__le64 journal_sectors;
	__le64 tip_id;
	__u8 reserved[3984];
};

/* A range in the journal: its first sector, and its length, not 0, above that. */
#define QC2_TIP_RANGE_SHIFT	40
#define QC2_TIP_RANGE_MAX	((1U << (64 - QC2_TIP_RANGE_SHIFT)) - 1)
#define QC2_TIP_JOURNAL_RANGES	62

/**
 * struct qc2_tip_journal - one sector of the journal
 * @checksum: CRC-32C, as in the superblock, of the sector with this field 0
 * @nr_ranges: 1 to QC2_TIP_JOURNAL_RANGES
 * @tip_id: as in the superblock
 * @ranges: sector | nr_sectors << QC2_TIP_RANGE_SHIFT; zeros behind @nr_ranges
 *
 * A sector with another tip_id or a wrong checksum holds nothing: it was never
 * written, or no commit that needs it was completed.
 */
struct qc2_tip_journal {
	__le32 checksum;
	__le32 nr_ranges;
	__le64 tip_id;
	__le64 ranges[QC2_TIP_JOURNAL_RANGES];
};

#endif /* _UAPI_LINUX_DM_QCOW2CHAIN_H */
