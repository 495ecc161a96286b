/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest in one boot sector: reads the first CHUNKS * 64 sectors of the disk
 * that it was booted from through the BIOS, prints their CRC-32 (as gzip counts
 * it) in hexadecimal on the first serial port, and ends QEMU through
 * isa-debug-exit (status 1; 3 after a read error).
 */
	.code16
	.globl	_start
_start:
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7c00, %sp
	movb	%dl, drive
	movl	$0xffffffff, %ebx

next_chunk:
	pushl	%ebx
	movw	$packet, %si
	movb	drive, %dl
	movb	$0x42, %ah
	int	$0x13
	popl	%ebx
	movb	$1, %al
	jc	exit

	movw	$0x1000, %ax
	movw	%ax, %es
	xorw	%di, %di
	movw	$(64 * 512), %cx
next_byte:
	xorb	%es:(%di), %bl
	incw	%di
	movb	$8, %al
next_bit:
	shrl	$1, %ebx
	jnc	1f
	xorl	$0xedb88320, %ebx
1:	decb	%al
	jnz	next_bit
	loop	next_byte

	addl	$64, packet_sector
	decw	chunks
	jnz	next_chunk

	notl	%ebx
	movw	$8, %cx
next_digit:
	roll	$4, %ebx
	movb	%bl, %al
	andb	$15, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	1f
	addb	$('a' - '0' - 10), %al
1:	call	put
	loop	next_digit
	movb	$'\n', %al
	call	put
	movb	$0, %al
exit:
	movw	$0xf4, %dx
	outb	%al, %dx
	hlt

put:
	pushw	%ax
	movw	$0x3fd, %dx
1:	inb	%dx, %al
	testb	$0x20, %al
	jz	1b
	popw	%ax
	movw	$0x3f8, %dx
	outb	%al, %dx
	ret

	.balign	4
packet:
	.byte	16, 0
	.word	64
	.word	0, 0x1000
packet_sector:
	.quad	0
chunks:
	.word	CHUNKS
drive:
	.byte	0
	.org	510
	.word	0xaa55
