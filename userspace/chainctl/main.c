/* SPDX-License-Identifier: GPL-2.0 */
/*
 * chainctl: the command line.  Parses options, finds the verb, turns errors
 * into texts and exit codes.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "chainctl.h"
#include "dm.h"
#include "tip.h"

enum {
	OPT_HELP = 256,
	OPT_VERSION,
	OPT_CONFIG,
	OPT_JSON,
	OPT_TIP,
	OPT_FAIL_READS_AFTER,
	OPT_MAP_LIMIT_KB,
	OPT_DISCARD,
	OPT_CHAIN_ID,
	OPT_SIZE,
	OPT_JOURNAL_SIZE,
	OPT_FORCE,
	OPT_JOURNAL,
	OPT_OFFSET,
	OPT_LENGTH,
	OPT_OUTPUT,
	OPT_NO_DIGESTS,
	OPT_ALL,
};

#define BIT(opt)	(1U << ((opt) - OPT_HELP))
/* Options that every verb takes */
#define COMMON		(BIT(OPT_HELP) | BIT(OPT_VERSION) | BIT(OPT_CONFIG) | BIT(OPT_JSON))

static const struct option options[] = {
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "tip", required_argument, NULL, OPT_TIP },
	{ "fail-reads-after", required_argument, NULL, OPT_FAIL_READS_AFTER },
	{ "map-limit-kb", required_argument, NULL, OPT_MAP_LIMIT_KB },
	{ "discard", no_argument, NULL, OPT_DISCARD },
	{ "chain-id", required_argument, NULL, OPT_CHAIN_ID },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "journal-size", required_argument, NULL, OPT_JOURNAL_SIZE },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "journal", no_argument, NULL, OPT_JOURNAL },
	{ "offset", required_argument, NULL, OPT_OFFSET },
	{ "length", required_argument, NULL, OPT_LENGTH },
	{ "output", required_argument, NULL, OPT_OUTPUT },
	{ "no-digests", no_argument, NULL, OPT_NO_DIGESTS },
	{ "all", no_argument, NULL, OPT_ALL },
	{ }
};

struct verb {
	const char *name;
	const char *subverb;	/* NULL: the verb is one word */
	const char *title;	/* as errors name it */
	int min_args, max_args;
	unsigned int takes;	/* options besides the common ones */
	unsigned int needs;	/* options that must be given */
	int (*run)(struct ctl *ctl, struct qc2_err *err);
	const char *help;
};

static const struct verb verbs[] = {
	{
		.name = "start", .title = "start", .min_args = 2, .max_args = 2,
		.takes = BIT(OPT_TIP) | BIT(OPT_FAIL_READS_AFTER) | BIT(OPT_MAP_LIMIT_KB),
		.run = disk_start,
		.help =
"chainctl start IMAGE_URL NAME [--tip PATH] [--fail-reads-after SECONDS]\n"
"               [--map-limit-kb N]\n"
"  Opens the qcow2 chain whose top image is at IMAGE_URL and makes it the\n"
"  disk /dev/mapper/NAME.\n"
"    --tip PATH                file or block device that takes the writes\n"
"                              (default: a file in the configured folder)\n"
"    --fail-reads-after SECONDS\n"
"                              fail reads that wait longer (default: wait)\n"
"    --map-limit-kb N          memory for the chain map in the kernel\n",
	},
	{
		.name = "stop", .title = "stop", .min_args = 1, .max_args = 1,
		.takes = BIT(OPT_DISCARD), .run = disk_stop,
		.help =
"chainctl stop NAME [--discard]\n"
"  Removes the disk.  Its tip stays and the next start goes on with it.\n"
"    --discard                 delete the tip: all that was written is lost\n",
	},
	{
		.name = "status", .title = "status", .max_args = 1,
		.run = status_show,
		.help =
"chainctl status [NAME]\n"
"  Shows the disks, the cache and the daemon in full.\n",
	},
	{
		.name = "list", .title = "list", .run = status_list,
		.help =
"chainctl list\n"
"  Shows the disks, one a line.\n",
	},
	{
		.name = "info", .title = "info", .min_args = 1, .max_args = 1,
		.run = chain_info,
		.help =
"chainctl info IMAGE_URL\n"
"  Shows the chain whose top image is at IMAGE_URL: its links, how large they\n"
"  are, and how much of the disk's content comes from each.\n",
	},
	{
		.name = "map", .title = "map", .min_args = 1, .max_args = 1,
		.takes = BIT(OPT_OFFSET) | BIT(OPT_LENGTH), .run = chain_map,
		.help =
"chainctl map IMAGE_URL|NAME [--offset BYTES] [--length BYTES]\n"
"  Shows where the content of a chain, or of the chain below a disk's tip, is.\n"
"    --offset BYTES            begin here (default: 0)\n"
"    --length BYTES            show so much of the disk (default: all)\n",
	},
	{
		.name = "publish", .title = "publish", .min_args = 1, .max_args = 1,
		.takes = BIT(OPT_OUTPUT) | BIT(OPT_NO_DIGESTS), .run = chain_publish,
		.help =
"chainctl publish IMAGE_URL [--output FILE] [--no-digests]\n"
"  Writes the manifest of the chain whose top image is at IMAGE_URL beside it, so\n"
"  that opening the chain takes one or two requests at any depth.\n"
"    --output FILE             write it there instead, to be uploaded otherwise\n"
"    --no-digests              do not read the data\n",
	},
	{
		.name = "cache", .subverb = "resize", .title = "cache resize",
		.min_args = 1, .max_args = 1, .run = cache_resize,
		.help =
"chainctl cache resize SIZE\n"
"  Makes the cache larger or smaller, while disks run, until chaind is started\n"
"  anew.  SIZE is in bytes, or a number with K, M, G or T.\n",
	},
	{
		.name = "cache", .subverb = "pin", .title = "cache pin",
		.min_args = 1, .max_args = 1, .run = cache_pin,
		.help =
"chainctl cache pin NAME\n"
"  What the cache has, and gets, of the images of a running disk is not evicted any\n"
"  more, also after the disk was stopped; half of the cache at most.\n",
	},
	{
		.name = "cache", .subverb = "unpin", .title = "cache unpin",
		.max_args = 1, .takes = BIT(OPT_ALL), .run = cache_unpin,
		.help =
"chainctl cache unpin NAME | --all\n"
"  Takes that back, with any disk over the same images.\n"
"    --all                     for all images, also those that no disk is over\n",
	},
	{
		.name = "pull", .title = "pull", .min_args = 1, .max_args = 1,
		.takes = BIT(OPT_FORCE), .run = chain_pull,
		.help =
"chainctl pull IMAGE_URL [--force]\n"
"  Brings all live data of the chain whose top image is at IMAGE_URL into the\n"
"  cache of this host, as far as it is not there under any name.\n"
"    --force                   even if the cache is too small for all of it\n",
	},
	{
		.name = "tip", .subverb = "create", .title = "tip create",
		.min_args = 1, .max_args = 1,
		.takes = BIT(OPT_CHAIN_ID) | BIT(OPT_SIZE) | BIT(OPT_JOURNAL_SIZE) | BIT(OPT_FORCE),
		.needs = BIT(OPT_CHAIN_ID) | BIT(OPT_SIZE),
		.run = tip_create,
		.help =
"chainctl tip create PATH --chain-id HEX --size BYTES [--journal-size BYTES]\n"
"                    [--force]\n"
"  Makes an empty tip in a new file or on a block device.\n"
"    --chain-id HEX            chain it lies over, 32 hex digits\n"
"    --size BYTES              size of the virtual disk\n"
"    --journal-size BYTES      size of its journal; 0: none (default: 1M)\n"
"    --force                   overwrite what the block device holds\n",
	},
	{
		.name = "tip", .subverb = "check", .title = "tip check",
		.min_args = 1, .max_args = 1, .run = tip_check,
		.help =
"chainctl tip check PATH\n"
"  Checks a tip and shows what it belongs to and how much it holds.\n",
	},
	{
		.name = "tip", .subverb = "dump", .title = "tip dump",
		.min_args = 1, .max_args = 1, .takes = BIT(OPT_JOURNAL), .run = tip_dump,
		.help =
"chainctl tip dump PATH [--journal]\n"
"  Shows a tip's superblock and which sectors are in it: first sector and\n"
"  number of sectors, one range a line.\n"
"    --journal                 show the sectors of its journal, too\n",
	},
};

#define NR_VERBS	(sizeof(verbs) / sizeof(verbs[0]))

static void print_help(const struct verb *verb)
{
	if (!verb)
		printf("chainctl [OPTIONS] VERB ...: virtual disks from remote qcow2 chains\n\n");
	for (size_t i = 0; i < NR_VERBS; i++) {
		if (verb && verb != &verbs[i])
			continue;
		printf("%s\n", verbs[i].help);
	}
	printf("Common options:\n"
	       "    --config FILE             configuration (default: %s)\n"
	       "    --json                    print JSON\n"
	       "    --help, --version\n"
	       "The manual page chainctl(8) says more.\n", QC2_CONFIG_DEFAULT_PATH);
}

static int usage(const char *fmt, const char *what)
{
	fputs("chainctl: ", stderr);
	fprintf(stderr, fmt, what);
	fputs("; see chainctl --help\n", stderr);
	return EXIT_USAGE;
}

static int exit_code(int ret)
{
	switch (-ret) {
	case 0:
		return EXIT_OK;
	case EBADARG:
		return EXIT_USAGE;
	case ENOENT:
	case ENODEV:
	case ENXIO:
	case ENOTDIR:
		return EXIT_NOT_FOUND;
	case EBUSY:
	case EEXIST:
		return EXIT_BUSY;
	case EACCES:
	case EPERM:
		return EXIT_DENIED;
	case EAGAIN:	/* the store may do better later */
	case EPROTO:	/* it does not keep to HTTP */
	case EREMOTEIO:
	case ETIMEDOUT:
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EHOSTUNREACH:
	case EHOSTDOWN:
	case ENETUNREACH:
	case ENETDOWN:
	case ECOMM:
		return EXIT_REMOTE;
	case EBADMSG:
	case EUCLEAN:
	case EILSEQ:
	case EMEDIUMTYPE:
	case ESTALE:
		return EXIT_INTEGRITY;
	default:
		return EXIT_FAILED;
	}
}

/* A number, with the suffix K, M, G or T if @suffix. */
static int parse_number(const char *text, bool suffix, uint64_t min, uint64_t max,
			uint64_t *value)
{
	static const char units[] = "KMGT";
	unsigned long long v;
	unsigned int shift = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	if (suffix && *end) {
		const char *unit = strchr(units, *end);

		if (!unit)
			return -EINVAL;
		shift = 10 * (unit - units + 1);
		end++;
	}
	if (*end || v > max >> shift || (uint64_t)v << shift < min)
		return -EINVAL;
	*value = (uint64_t)v << shift;
	return 0;
}

int parse_size(const char *text, uint64_t *bytes)
{
	return parse_number(text, true, 0, INT64_MAX, bytes);
}

static int take_option(struct ctl *ctl, int opt, const char **config)
{
	switch (opt) {
	case OPT_CONFIG:
		*config = optarg;
		return 0;
	case OPT_JSON:
		ctl->json = true;
		return 0;
	case OPT_TIP:
		ctl->tip = optarg;
		return *optarg ? 0 : usage("--tip needs a path%s", "");
	case OPT_FAIL_READS_AFTER:
		/* The limits of both are the kernel's. */
		if (parse_number(optarg, false, 1, 86400, &ctl->fail_reads_after))
			return usage("--fail-reads-after %s: expected a number of seconds, 1 to 86400",
				     optarg);
		return 0;
	case OPT_MAP_LIMIT_KB:
		if (parse_number(optarg, false, 256, UINT32_MAX, &ctl->map_limit_kb))
			return usage("--map-limit-kb %s: expected a number of KiB, 256 or more",
				     optarg);
		return 0;
	case OPT_DISCARD:
		ctl->discard = true;
		return 0;
	case OPT_CHAIN_ID:
		ctl->chain_id = optarg;
		return 0;
	case OPT_SIZE:
		if (parse_number(optarg, true, 512, INT64_MAX, &ctl->size))
			return usage("--size %s: expected bytes, or a number with K, M, G or T",
				     optarg);
		return 0;
	case OPT_JOURNAL_SIZE:
		if (parse_number(optarg, true, 0, INT64_MAX, &ctl->journal_size))
			return usage("--journal-size %s: expected bytes, or a number with K or M",
				     optarg);
		return 0;
	case OPT_OFFSET:
		if (parse_number(optarg, true, 0, INT64_MAX, &ctl->offset))
			return usage("--offset %s: expected bytes, or a number with K, M, G or T",
				     optarg);
		return 0;
	case OPT_LENGTH:
		if (parse_number(optarg, true, 1, INT64_MAX, &ctl->length))
			return usage("--length %s: expected bytes, or a number with K, M, G or T",
				     optarg);
		return 0;
	case OPT_ALL:
		ctl->all = true;
		return 0;
	case OPT_FORCE:
		ctl->force = true;
		return 0;
	case OPT_OUTPUT:
		ctl->output = optarg;
		return *optarg ? 0 : usage("--output needs a path%s", "");
	case OPT_NO_DIGESTS:
		ctl->no_digests = true;
		return 0;
	case OPT_JOURNAL:
		ctl->journal = true;
		return 0;
	default:
		return 0;
	}
}

static const char *option_name(unsigned int bits)
{
	for (const struct option *o = options; o->name; o++)
		if (bits & BIT(o->val))
			return o->name;
	return "?";
}

/* Finds the verb and how many words name it. */
static const struct verb *find_verb(int argc, char **argv, int *words)
{
	for (size_t i = 0; i < NR_VERBS; i++) {
		const struct verb *v = &verbs[i];

		if (argc < 1 || strcmp(argv[0], v->name))
			continue;
		if (v->subverb && (argc < 2 || strcmp(argv[1], v->subverb)))
			continue;
		*words = v->subverb ? 2 : 1;
		return v;
	}
	return NULL;
}

/* What could not be written must not look like success. */
static int finish(int code)
{
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "chainctl: cannot write to standard output: %s\n",
			strerror(errno));
		return code ? code : EXIT_FAILED;
	}
	return code;
}

int main(int argc, char **argv)
{
	struct ctl ctl = { .journal_size = QC2_TIP_JOURNAL_DEFAULT * 512 };
	struct qc2_err err = { };
	const char *config = NULL;
	const struct verb *verb;
	unsigned int given = 0;
	int opt, words, nr_args, ret;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == '?')
			return usage("not understood%s", "");	/* getopt said what */
		if (opt == 'h')
			opt = OPT_HELP;
		given |= BIT(opt);
		ret = take_option(&ctl, opt, &config);
		if (ret)
			return ret;
	}
	argc -= optind;
	argv += optind;

	if (given & BIT(OPT_VERSION)) {
		printf("chainctl %s\n", QC2_VERSION);
		return finish(EXIT_OK);
	}
	verb = find_verb(argc, argv, &words);
	if (given & BIT(OPT_HELP)) {
		print_help(verb);
		return finish(EXIT_OK);
	}
	if (!argc)
		return usage("no verb given%s", "");
	if (!verb)
		return usage(!strcmp(argv[0], "tip") ?
			     "\"%s\" must be followed by create, check or dump" :
			     !strcmp(argv[0], "cache") ?
			     "\"%s\" must be followed by resize, pin or unpin" :
			     "there is no verb \"%s\"", argv[0]);
	nr_args = argc - words;
	if (nr_args < verb->min_args)
		return usage("%s: too few arguments", verb->title);
	if (nr_args > verb->max_args)
		return usage("%s: too many arguments", verb->title);
	for (int i = 0; i < nr_args; i++)
		ctl.arg[i] = argv[words + i];
	if (given & ~(verb->takes | COMMON)) {
		fprintf(stderr, "chainctl: %s: --%s is no option of this verb; see chainctl --help\n",
			verb->title, option_name(given & ~(verb->takes | COMMON)));
		return EXIT_USAGE;
	}
	if (verb->needs & ~given) {
		fprintf(stderr, "chainctl: %s: --%s is missing; see chainctl --help\n",
			verb->title, option_name(verb->needs & ~given));
		return EXIT_USAGE;
	}
	ctl.verb = verb->title;

	/* No core dump has keys in it: libcurl and others keep copies of them. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	ret = qc2_config_load(config, &ctl.cfg, &err);
	if (!ret) {
		dm_setup();
		ret = verb->run(&ctl, &err);
		dm_teardown();
		qc2_sites_free(ctl.sites);
		qc2_config_free(&ctl.cfg);
	}
	if (ret) {
		fprintf(stderr, "chainctl: %s: ", verb->title);
		out_text(stderr, *err.msg ? err.msg : strerror(-ret));
		fputc('\n', stderr);
	}
	return finish(exit_code(ret));
}
