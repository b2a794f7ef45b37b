/*
 * The table of options, and what is made from it: parsing (getopt_long), --help, bash completion.
 */
#include "cli/command.h"

#include "base/file.h"
#include "base/memory.h"
#include "core/rule.h"
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	KIND_FLAG,
	KIND_STRING,
	KIND_CHOICE, // one of the words in value
	KIND_HANDOFF,
	KIND_POLICY,
	KIND_TOKENS, // a string that lists token ids
	KIND_BATCH,  // a number of sequences, or fit
	KIND_INTEGER,
	KIND_NUMBER,
	KIND_LIST,
	KIND_WORDS, // a list; the words behind it that are no options and no folders belong to it
	KIND_FILE   // a file's name, or nothing, which is "-"
};

struct option_row {
	const char *name;
	char letter; // 0 = none
	uint64_t groups;
	enum kind kind;
	size_t offset;
	double low, high;  // of integers and numbers
	const char *value; // how help names the value; words with | are offered by completion
	const char *help;
};

#define AT(field) offsetof(struct cli, field)
#define EVERY GROUP_EVERYWHERE
#define NOWHERE ((size_t)-1) // help and version

static const struct option_row rows[] = {
	{"model", 'm', GROUP_MODEL, KIND_STRING, AT(model), 0, 0, "DIR",
	 "the checkpoint; DIR#BUDGET names a budget too"},
	{"source-checkpoint", 0, GROUP_EXPORT, KIND_STRING, AT(source), 0, 0, "DIR",
	 "the parent (the bundled demo)"},
	{"target-checkpoint", 0, GROUP_EXPORT, KIND_STRING, AT(target), 0, 0, "DIR",
	 "the directory to make"},
	{"size", 0, GROUP_SLICE, KIND_STRING, AT(budget), 0, 0, "B",
	 "a budget's name, or widths: hidden_size=96,n_routed_experts=12,skip=3+7"},
	{"precision", 0, GROUP_EXPORT, KIND_CHOICE, AT(precision), 0, 0, "bf16|fp8|nvfp4",
	 "how weights are stored (as in the parent)"},
	{"elastic", 0, GROUP_SLICE, KIND_FLAG, AT(elastic), 0, 0, NULL,
	 "per-layer widths: write them for elastiscope only"},
	{"force", 0, GROUP_EXPORT, KIND_FLAG, AT(force), 0, 0, NULL,
	 "replace a checkpoint that is there already"},
	{"max-shard-size", 0, GROUP_EXPORT, KIND_STRING, AT(shard_size), 0, 0, "SIZE",
	 "of one file of weights (5GB)"},
	{"text", 0, GROUP_QUANTIZE, KIND_STRING, AT(text), 0, 0, "FILE",
	 "calibrate input_scale on it, and report KL, agreement and perplexity"},
	{"exclude", 0, GROUP_EXPORT, KIND_LIST, AT(exclude), 0, 0, "PATTERN",
	 "modules that stay as they are: '*.layers.3.*'; may be repeated"},
	{"explain", 0, GROUP_VERIFY, KIND_FLAG, AT(explain), 0, 0, NULL,
	 "what differing tensors are instead: permuted, scaled, cut elsewhere, ..."},
	{"budgets", 0, GROUP_MODEL | GROUP_EXPORT | GROUP_VERIFY, KIND_STRING, AT(budgets_file), 0, 0,
	 "FILE", "read budgets from FILE (elastic.json format)"},
	{"lenient", 0, GROUP_MODEL, KIND_FLAG, AT(lenient), 0, 0, NULL,
	 "open budgets that are not nested, naming each violation"},
	{"budget", 'b', GROUP_POLICY | GROUP_BUDGET, KIND_STRING, AT(budget), 0, 0, "B",
	 "a name, widths (hidden_size=96), a mask (medium,skip=3) or active=2.8B"},
	{"think", 0, GROUP_POLICY, KIND_STRING, AT(think), 0, 0, "B", "the budget that thinks"},
	{"answer", 0, GROUP_POLICY, KIND_STRING, AT(answer), 0, 0, "B", "the budget that answers"},
	{"read", 0, GROUP_POLICY, KIND_STRING, AT(read), 0, 0, "B", "the budget that reads the prompt"},
	{"policy", 0, GROUP_POLICY, KIND_POLICY, AT(policy), 0, 0, "P",
	 "who writes: entropy>2.0 large else small, top1<0.6 .., every N .."},
	{"handoff", 0, GROUP_POLICY, KIND_HANDOFF, AT(handoff), 0, 0, "reprefill|carry|repair:N",
	 "what a change of budget does with the state"},
	{"device", 0, GROUP_DEVICE, KIND_STRING, AT(device), 0, 0, "auto|cpu|cuda[:N][,alone]",
	 "where it runs: a card where it fits, else the CPU; alone: one budget"},
	{"threads", 't', GROUP_DEVICE, KIND_INTEGER, AT(threads), 1, 1024, "N", "CPU threads"},
	{"ctx", 0, GROUP_DEVICE, KIND_INTEGER, AT(context), 1, 16777216, "N",
	 "tokens that a conversation can hold"},
	{"math", 0, GROUP_DEVICE, KIND_CHOICE, AT(math), 0, 0, "exact|fast", "precision of the sums"},
	{"kv", 0, GROUP_DEVICE, KIND_CHOICE, AT(kv), 0, 0, "f32|bf16|fp8",
	 "precision of the KV cache; fp8 with the checkpoint's scales, else 1"},
	{"snapshots", 0, GROUP_DEVICE, KIND_STRING, AT(snapshots), 0, 0, "SIZE",
	 "of a card, for states to go back to (0: none); others lie on the host"},
	{"warm", 0, GROUP_DEVICE, KIND_FLAG, AT(warm), 0, 0, NULL,
	 "touch the pages of all budgets before the first token"},
	{"seed", 0, GROUP_SAMPLING | GROUP_CURVE, KIND_INTEGER, AT(seed), 0, 9007199254740992.0, "N",
	 "of the noise; always shown"},
	{"temp", 0, GROUP_SAMPLING, KIND_NUMBER, AT(temperature), 0, 100, "F",
	 "temperature, 0 = greedy"},
	{"top-p", 0, GROUP_SAMPLING, KIND_NUMBER, AT(top_p), 0, 1, "F", "nucleus, 1 = off"},
	{"top-k", 0, GROUP_SAMPLING, KIND_INTEGER, AT(top_k), 0, 2147483647, "N", "0 = off"},
	{"min-p", 0, GROUP_SAMPLING, KIND_NUMBER, AT(min_p), 0, 1, "F", "0 = off"},
	{"n", 'n', GROUP_SAMPLING, KIND_INTEGER, AT(n), 0, 16777216, "N",
	 "tokens to generate at most, 0 = until it ends"},
	{"no-think", 0, GROUP_THINKING | GROUP_COMPARE | GROUP_LAB | GROUP_ASK, KIND_FLAG, AT(no_think),
	 0, 0, NULL, "no reasoning"},
	{"think-limit", 0, GROUP_THINKING, KIND_INTEGER, AT(think_limit), 1, 16777216, "N",
	 "end the reasoning after N tokens"},
	{"prompt", 'p', GROUP_PROMPT | GROUP_COMPARE | GROUP_LAB | GROUP_ASK, KIND_LIST, AT(prompts), 0,
	 0, "TEXT", "a user's turn; may be repeated in chat"},
	{"system", 0, GROUP_PROMPT | GROUP_COMPARE | GROUP_LAB | GROUP_ASK, KIND_STRING, AT(system), 0,
	 0, "TEXT", "the system text"},
	{"events", 0, GROUP_PROMPT, KIND_STRING, AT(events), 0, 0, "FILE",
	 "every event as a line of JSON"},
	{"tokens", 0, GROUP_TOKENS | GROUP_MEASURE, KIND_TOKENS, AT(tokens), 0, 0, "1,2,3",
	 "token ids"},
	{"text", 0, GROUP_TOKENS, KIND_STRING, AT(text), 0, 0, "TEXT",
	 "text instead of ids; of compare and tokens a file"},
	{"stop-eos", 0, GROUP_STOP_EOS, KIND_FLAG, AT(stop_eos), 0, 0, NULL, "end at stop ids"},
	{"out", 0, GROUP_LOGITS, KIND_STRING, AT(out), 0, 0, "FILE", "the safetensors file to write"},
	{"taps", 0, GROUP_LOGITS, KIND_STRING, AT(taps), 0, 0, "hidden,experts,lens",
	 "what else to write"},
	{"switch", 0, GROUP_LOGITS, KIND_LIST, AT(switches), 0, 0, "POS:BUDGET:HANDOFF",
	 "change budget before a position; may be repeated"},
	{"route-from", 0, GROUP_COMPARE, KIND_STRING, AT(route_from), 0, 0, "B",
	 "run the others with this one's experts too: the share of routing in KL"},
	{"lens", 0, GROUP_COMPARE, KIND_FLAG, AT(lens), 0, 0, NULL,
	 "what every layer would say through norm_f and lm_head"},
	{"text-only", 0, GROUP_COMPARE, KIND_FLAG, AT(text_only), 0, 0, NULL,
	 "compare what each writes to -p, whatever its vocabulary"},
	{"worst", 0, GROUP_COMPARE, KIND_INTEGER, AT(worst), 0, 16777216, "N",
	 "list the N positions of the largest KL (10)"},
	{"at", 0, GROUP_LAB, KIND_INTEGER, AT(at), 1, 16777216, "POS",
	 "the position before which the budget changes"},
	{"horizon", 0, GROUP_LAB, KIND_INTEGER, AT(horizon), 1, 65536, "N",
	 "tokens behind the switch that are looked at (64)"},
	{"axis", 0, GROUP_CURVE, KIND_LIST, AT(axes), 0, 0, "A",
	 "curve: the axis to cut, hidden_size; two make a map"},
	{"step", 0, GROUP_CURVE, KIND_INTEGER, AT(step), 1, 1048576, "N",
	 "curve: channels from one width to the next (16)"},
	{"widths", 0, GROUP_CURVE, KIND_LIST, AT(widths), 0, 0, "A,B,C",
	 "curve: these widths; a second list for a second axis"},
	{"draws", 0, GROUP_CURVE, KIND_INTEGER, AT(draws), 0, 16, "N",
	 "curve: random controls of every width (3)"},
	{"write", 0, GROUP_CURVE, KIND_STRING, AT(write), 0, 0, "FILE",
	 "boundaries: what was found, for --budgets"},
	{"tolerance", 0, GROUP_CURVE, KIND_NUMBER, AT(tolerance), 1e-9, 1e9, "F",
	 "mask, against (exit 1): how far a layer may be off"},
	{"special", 0, GROUP_SPECIAL, KIND_FLAG, AT(special), 0, 0, NULL,
	 "parse special tokens in texts"},
	{"check", 0, GROUP_FIT, KIND_FLAG, AT(check), 0, 0, NULL,
	 "read every stored number: no NaN, infinity or negative scale"},
	{"fit", 0, GROUP_FIT, KIND_STRING, AT(fit), 0, 0, "SIZE",
	 "what fits into SIZE (24GiB): precision x budget x context"},
	{"sweep", 0, GROUP_ROUTER, KIND_INTEGER, AT(sweep), 2, 10001, "N",
	 "router: the widths chosen for N targets up to the parent"},
	{"metric", 0, GROUP_ROUTER, KIND_CHOICE, AT(metric), 0, 0, "active|total|bytes",
	 "router: what the targets of --sweep count"},
	{"tau", 0, GROUP_ROUTER, KIND_NUMBER, AT(tau), 0.001, 1000, "F",
	 "router: the softmax's temperature instead of the file's"},
	{"scaler", 0, GROUP_ROUTER, KIND_NUMBER, AT(scaler), 0.001, 1000000, "F",
	 "router: the logits' factor instead of the file's"},
	{"search", 0, GROUP_SESSIONS, KIND_STRING, AT(search), 0, 0, "TEXT",
	 "list: only sessions in which this was said"},
	{"format", 0, GROUP_SESSIONS, KIND_STRING, AT(format), 0, 0, "md|json|csv",
	 "export: the conversation as Markdown or JSON, or a row a token"},
	{"batch", 0, GROUP_BATCH, KIND_BATCH, AT(batch), 1, MAX_LANES, "N|fit",
	 "only this: N sequences decoded together by each budget, or as many as fit"},
	{"speed", 0, GROUP_SESSIONS, KIND_NUMBER, AT(speed), 0, 1000000, "X",
	 "replay: so many times as fast as recorded, 0 = as fast as it goes"},
	{"verify", 0, GROUP_SESSIONS, KIND_FLAG, AT(verify), 0, 0, NULL,
	 "replay: with the model: the same tokens, or the first difference"},
	{"json", 0, GROUP_JSON, KIND_FLAG, AT(json), 0, 0, NULL, "machine-readable output"},
	{"csv", 0, GROUP_CSV, KIND_FLAG, AT(csv), 0, 0, NULL, "tables as CSV"},
	{"tasks", 0, GROUP_STUDY, KIND_STRING, AT(tasks), 0, 0, "FILE",
	 "a task a line: {\"prompt\", \"answer\", \"match\": \"exact|regex|number\"}"},
	{"grid", 0, GROUP_STUDY, KIND_LIST, AT(grid), 0, 0, "AXIS=V,V;AXIS=V",
	 "read, think (or off), answer, handoff, think-limit, policy; {a,b} is one"},
	{"limit", 0, GROUP_STUDY, KIND_INTEGER, AT(limit), 1, 1e9, "N",
	 "N tasks only, evenly spread over the file"},
	{"csv", 0, GROUP_STUDY, KIND_FILE, AT(csv_file), 0, 0, "[FILE]",
	 "every row, to stdout or FILE; rows that FILE has are not run again"},
	{"plain", 0, GROUP_TERMINAL, KIND_FLAG, AT(plain), 0, 0, NULL,
	 "a line chat without screen control"},
	{"no-color", 0, GROUP_TERMINAL, KIND_FLAG, AT(no_color), 0, 0, NULL, "no colours"},
	{"theme", 0, GROUP_TERMINAL, KIND_STRING, AT(theme), 0, 0, "default|light|mono|ascii",
	 "colours and glyphs"},
	{"script", 0, GROUP_TERMINAL, KIND_STRING, AT(script), 0, 0, "FILE",
	 "steps to play instead of keys (docs/guide.md)"},
	{"size", 0, GROUP_TERMINAL, KIND_STRING, AT(size), 0, 0, "WxH", "the screen's size"},
	{"pace", 0, GROUP_TERMINAL, KIND_NUMBER, AT(pace), 0, 1000000, "N",
	 "slow down so that the largest budget shows N tokens/s, 0 = off"},
	{"tour", 0, GROUP_TERMINAL, KIND_FLAG, AT(tour), 0, 0, NULL, "90 seconds that show it all"},
	{"text", 0, GROUP_MEASURE, KIND_WORDS, AT(texts), 0, 0, "FILE...", "texts to measure on"},
	{"sessions", 0, GROUP_MEASURE, KIND_WORDS, AT(sessions), 0, 0, "FILE|NUMBER...",
	 "recorded conversations to measure on, as the model reads them"},
	{"out", 0, GROUP_MEASURE, KIND_STRING, AT(out), 0, 0, "FILE|DIR",
	 "write the scores there too; a folder gets importance.safetensors"},
	{"scores", 0, GROUP_SCORES, KIND_LIST, AT(scores), 0, 0, "FILE|cache",
	 "importance, agreement: what calibrate measured; agreement takes two"},
	{"quiet", 'q', EVERY, KIND_FLAG, AT(quiet), 0, 0, NULL, "no progress, no notes"},
	{"help", 'h', EVERY, KIND_FLAG, NOWHERE, 0, 0, NULL, "this text"},
	{"version", 0, EVERY, KIND_FLAG, NOWHERE, 0, 0, NULL, "the version"},
};

#define N_ROWS (sizeof rows / sizeof rows[0])

static bool accepts(const struct subcommand *command, const struct option_row *row)
{
	return (row->groups & (command->groups | GROUP_EVERYWHERE)) != 0;
}

/* Two options may share a name; a command takes the one of its own groups. */
static bool shadowed(const struct subcommand *command, size_t index)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (i != index && strcmp(rows[i].name, rows[index].name) == 0 &&
			accepts(command, &rows[i]) && !accepts(command, &rows[index]))
			return true;
	return false;
}

/* The next argument, if it can be a file's name; getopt goes on behind it. */
static const char *next_file(int argc, char **argv)
{
	bool file = optind < argc && (argv[optind][0] != '-' || argv[optind][1] == '\0') &&
				!file_is_directory(argv[optind]);
	return file ? argv[optind++] : "-";
}

/* The words behind a list that belong to it; getopt goes on behind them. */
static const char *next_word(int argc, char **argv)
{
	bool word = optind < argc && argv[optind][0] != '-' && !file_is_directory(argv[optind]);
	return word ? argv[optind++] : NULL;
}

static int add_item(struct string_list *list, const char *item, struct error *err)
{
	if (mem_grow(&list->items, &list->capacity, list->n + 1, sizeof *list->items, err) < 0)
		return -1;
	list->items[list->n++] = item;
	return 0;
}

static int set_number(const struct option_row *row, void *place, const char *value,
					  struct error *err)
{
	char *end;
	errno = 0;
	double number = strtod(value, &end);
	if (end == value || *end != '\0' || errno != 0 || !isfinite(number))
		return fail(err, "--%s: '%s' is not a number", row->name, value);
	if (row->kind == KIND_INTEGER && number != floor(number))
		return fail(err, "--%s: '%s' is not a whole number", row->name, value);
	if (number < row->low || number > row->high)
		return fail(err, "--%s: %s is outside %.10g .. %.10g", row->name, value, row->low,
					row->high);
	if (row->kind == KIND_INTEGER)
		*(int64_t *)place = (int64_t)number;
	else
		*(double *)place = number;
	return 0;
}

/* "a|b|c" holds the word. */
static bool among(const char *choices, const char *word)
{
	size_t length = strlen(word);
	for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
		at += *at == '|';
		if (strcspn(at, "|") == length && strncmp(at, word, length) == 0)
			return true;
	}
	return false;
}

static int check_choice(const struct option_row *row, const char *word, struct error *err)
{
	if (among(row->value, word))
		return 0;
	return fail(err, "--%s: '%s': expected %s", row->name, word, row->value);
}

static int check_handoff(const struct option_row *row, const char *value, struct error *err)
{
	enum handoff handoff;
	int repair;
	return handoff_parse(value, &handoff, &repair, err) ? fail_in(err, "--%s", row->name) : 0;
}

static int check_tokens(const struct option_row *row, const char *value, struct error *err)
{
	int32_t *ids;
	int n;
	if (cli_token_list(value, &ids, &n, err) < 0)
		return fail_in(err, "--%s", row->name);
	free(ids);
	return 0;
}

static int check_batch(const struct option_row *row, const char *value, struct error *err)
{
	struct option_row number = *row;
	int64_t n;
	if (strcmp(value, "fit") == 0)
		return 0;
	if (!value[0] || value[strspn(value, "0123456789")])
		return fail(err, "--%s: '%s': expected a number of sequences or fit", row->name, value);
	number.kind = KIND_INTEGER;
	return set_number(&number, &n, value, err);
}

static int set_value(struct cli *cli, const struct option_row *row, const char *value,
					 struct error *err)
{
	void *place = (char *)cli + row->offset;
	struct rule rule;
	switch (row->kind) {
	case KIND_FLAG: *(bool *)place = true; return 0;
	case KIND_FILE:
	case KIND_STRING: *(const char **)place = value; return 0;
	case KIND_CHOICE: *(const char **)place = value; return check_choice(row, value, err);
	case KIND_HANDOFF: *(const char **)place = value; return check_handoff(row, value, err);
	case KIND_POLICY:
		*(const char **)place = value;
		if (!value[strspn(value, " \t;")])
			return fail(err, "--policy: '%s': expected RULE such as 'entropy>2.0 large else small'",
						value);
		return rule_parse(&rule, value, err);
	case KIND_TOKENS: *(const char **)place = value; return check_tokens(row, value, err);
	case KIND_BATCH: *(const char **)place = value; return check_batch(row, value, err);
	case KIND_WORDS:
	case KIND_LIST: return add_item(place, value, err);
	case KIND_INTEGER:
	case KIND_NUMBER: return set_number(row, place, value, err);
	}
	return 0;
}

/* The arguments that are no options: the model where the command takes one by position, then its
 * own. */
static int place_arguments(struct cli *cli, int argc, char **argv, struct error *err)
{
	const struct subcommand *command = cli->command;
	int n = argc - optind;
	/* An argument too many for the command itself is the model directory. */
	bool takes_model = (command->groups & GROUP_MODEL) != 0 && cli->model == NULL;
	for (int i = 0; i < n; i++) {
		bool last = i == n - 1;
		if (last && takes_model && command->max_arguments >= 0 && n > command->max_arguments)
			cli->model = argv[optind + i];
		else if (add_item(&cli->arguments, argv[optind + i], err) < 0)
			return -1;
	}
	if (command->max_arguments >= 0 && (int)cli->arguments.n > command->max_arguments)
		return fail(err, "%s%sunexpected argument '%s'", command->name,
					command->name[0] != '\0' ? ": " : "",
					cli->arguments.items[command->max_arguments]);
	if ((int)cli->arguments.n < command->min_arguments)
		return fail(err, "%s: expected %s", command->name, command->arguments);
	return 0;
}

/* What getopt could not place: optopt is a letter, a long option that takes no value, or 0. */
static int unknown_option(const char *word, struct error *err)
{
	int length = (int)strcspn(word, "=");
	if (optopt > 0 && optopt < 256)
		return fail(err, "-%c: no such option", optopt);
	if (optopt >= 256)
		return fail(err, "--%s: takes no value, found '%s'", rows[optopt - 256].name, word);
	for (size_t i = 0; i < N_ROWS; i++)
		if (length > 2 && strncmp(rows[i].name, word + 2, (size_t)length - 2) == 0)
			return fail(err, "%.*s: several options begin so", length, word);
	return fail(err, "%.*s: no such option", length, word);
}

/* Options whose defaults a user may write down. */
#define DEFAULTS                                                                                   \
	(GROUP_MODEL | GROUP_DEVICE | GROUP_POLICY | GROUP_SAMPLING | GROUP_THINKING |                 \
	 GROUP_TERMINAL | GROUP_EVERYWHERE)

int cli_default(struct cli *cli, const char *name, const char *value, struct error *err)
{
	const struct option_row *row = NULL;
	for (size_t i = 0; i < N_ROWS && !row; i++)
		if (strcmp(rows[i].name, name) == 0 && (rows[i].groups & DEFAULTS) != 0 &&
			rows[i].offset != NOWHERE && rows[i].kind != KIND_LIST)
			row = &rows[i];
	if (!row)
		return fail(err, "\"%s\" is no option that has a default", name);
	bool no = strcmp(value, "false") == 0;
	if (row->kind == KIND_FLAG && !no && strcmp(value, "true") != 0)
		return fail(err, "\"%s\": expected true or false, found %s", name, value);
	if (!accepts(cli->command, row) || (row->kind == KIND_FLAG && no))
		return 0;
	if (row->offset == AT(model) && getenv("ELASTISCOPE_MODEL"))
		return 0;
	char *kept = mem_string(value, strlen(value), err);
	if (!kept || add_item(&cli->defaults, kept, err) < 0) {
		free(kept);
		return -1;
	}
	if (row->offset != AT(model))
		return set_value(cli, row, kept, err);
	cli->default_model = kept;
	return 0;
}

/* What getopt_long() is told of a command's options. */
static void list_options(const struct subcommand *command, struct option longs[N_ROWS + 1],
						 char letters[2 * N_ROWS + 2])
{
	*letters++ = ':';
	for (size_t i = 0; i < N_ROWS; i++) {
		int has = rows[i].kind == KIND_FLAG   ? no_argument
				  : rows[i].kind == KIND_FILE ? optional_argument
											  : required_argument;
		if (!shadowed(command, i))
			*longs++ = (struct option){rows[i].name, has, NULL, (int)i + 256};
		if (rows[i].letter != 0) {
			*letters++ = rows[i].letter;
			if (has == required_argument)
				*letters++ = ':';
		}
	}
	*letters = '\0';
	*longs = (struct option){0};
}

int cli_parse(struct cli *cli, const struct subcommand *command, int argc, char **argv, bool *help,
			  bool *version, struct error *err)
{
	struct option longs[N_ROWS + 1];
	char letters[2 * N_ROWS + 2];
	list_options(command, longs, letters);
	*cli = (struct cli){.command = command,
						.seed = -1,
						.n = -1,
						.think_limit = -1,
						.worst = -1,
						.top_k = -1,
						.at = -1,
						.horizon = -1,
						.sweep = -1,
						.tau = -1,
						.scaler = -1,
						.step = -1,
						.draws = -1,
						.temperature = -1,
						.top_p = -1,
						.min_p = -1,
						.pace = -1,
						.limit = -1,
						.speed = -1};
	if (cli_read_defaults(cli, err) < 0)
		return -1;
	opterr = 0;
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
		if (c == ':')
			return fail(err, "%s: expected a value after it", argv[optind - 1]);
		if (c == '?')
			return unknown_option(argv[optind - 1], err);
		size_t i = c >= 256 ? (size_t)(c - 256) : 0;
		while (c < 256 && rows[i].letter != c)
			i++;
		if (!accepts(command, &rows[i]))
			return fail(err, "--%s: not an option of %s", rows[i].name,
						command->name[0] != '\0' ? command->name : "the workbench");
		if (rows[i].offset == NOWHERE)
			*(rows[i].letter == 'h' ? help : version) = true;
		else if (set_value(cli, &rows[i],
						   rows[i].kind == KIND_FILE && optarg == NULL ? next_file(argc, argv)
																	   : optarg,
						   err) < 0)
			return -1;
		const char *word;
		while (rows[i].kind == KIND_WORDS && (word = next_word(argc, argv)))
			if (set_value(cli, &rows[i], word, err) < 0)
				return -1;
	}
	return *help || *version ? 0 : place_arguments(cli, argc, argv, err);
}

void cli_free(struct cli *cli)
{
	for (size_t i = 0; i < cli->defaults.n; i++)
		free((char *)cli->defaults.items[i]);
	free(cli->defaults.items);
	free(cli->prompts.items);
	free(cli->switches.items);
	free(cli->grid.items);
	free(cli->exclude.items);
	free(cli->axes.items);
	free(cli->widths.items);
	free(cli->arguments.items);
	free(cli->texts.items);
	free(cli->sessions.items);
	free(cli->scores.items);
}

static void help_options(const struct subcommand *command)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		if (!accepts(command, &rows[i]))
			continue;
		char left[64];
		snprintf(left, sizeof left, "%c%c%s --%s%s%s", rows[i].letter != 0 ? '-' : ' ',
				 rows[i].letter != 0 ? rows[i].letter : ' ', rows[i].letter != 0 ? "," : " ",
				 rows[i].name, rows[i].value != NULL ? " " : "",
				 rows[i].value != NULL ? rows[i].value : "");
		printf("  %-34s %s\n", left, rows[i].help);
	}
}

/* Lines of at most 100 characters, broken behind a bar or a space. */
static void print_wrapped(const char *text)
{
	for (size_t room = 100; strlen(text) > room; room = 92) {
		size_t at = room;
		while (at > 1 && text[at - 1] != '|' && text[at - 1] != ' ')
			at--;
		printf("%.*s\n        ", (int)at, text);
		text += at;
	}
	printf("%s", text);
}

void cli_help(const struct subcommand *command)
{
	if (command->name[0] != '\0') {
		struct text usage = {0};
		text_format(&usage, "usage: elastiscope %s %s%s%s[options]", command->name,
					command->arguments, command->arguments[0] != '\0' ? " " : "",
					(command->groups & GROUP_MODEL) != 0 ? "[MODEL_DIR] " : "");
		print_wrapped(text_chars(&usage));
		text_free(&usage);
		printf("\n\n%s\n\n", command->summary);
		help_options(command);
		return;
	}
	printf("usage: elastiscope [MODEL_DIR] [options]        open the workbench\n"
		   "       elastiscope COMMAND ...                  --help after any command\n\n");
	for (const struct subcommand *row = subcommands + 1; row->name != NULL; row++)
		printf("  %-12s %s\n", row->name, row->summary);
	printf("\nOptions of the workbench:\n");
	help_options(command);
}

/* "a|b" as "a b", for compgen -W. */
static const char *spaced(const char *choices, char out[128])
{
	snprintf(out, 128, "%.*s", (int)strcspn(choices, " "), choices);
	for (char *bar = out; (bar = strchr(bar, '|')) != NULL;)
		*bar = ' ';
	return out;
}

/* One case a command: its options, and the words that may follow it, where these are a choice. */
static void completion_case(const struct subcommand *command)
{
	char words[128];
	printf("\t\t%s) options='", command->name[0] != '\0' ? command->name : "''");
	for (size_t i = 0; i < N_ROWS; i++)
		if (accepts(command, &rows[i]))
			printf("--%s ", rows[i].name);
	if (command->min_arguments > 0 && strchr(command->arguments, '.') == NULL)
		printf("' words='%s", spaced(command->arguments, words));
	printf("' ;;\n");
}

int cli_completion(const struct cli *cli)
{
	struct error err;
	char words[128];
	if (strcmp(cli->arguments.items[0], "bash") != 0) {
		fail(&err, "completion: '%s': expected bash", cli->arguments.items[0]);
		return cli_usage(&err);
	}
	static char all[1 << 16];
	setvbuf(stdout, all, _IOFBF, sizeof all); // one write, so that main() sees why it failed
	printf("# bash completion for elastiscope, made by `elastiscope completion bash`\n"
		   "_elastiscope() {\n"
		   "\tlocal word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
		   "\tlocal command='' options='' words='' files=yes commands='");
	for (const struct subcommand *row = subcommands + 1; row->name != NULL; row++)
		printf("%s ", row->name);
	printf("'\n\t[[ $COMP_CWORD -gt 1 && \" $commands \" == *\" ${COMP_WORDS[1]} \"* ]] && "
		   "command=\"${COMP_WORDS[1]}\"\n\tcase \"$command\" in\n");
	for (const struct subcommand *row = subcommands; row->name != NULL; row++)
		completion_case(row);
	printf("\tesac\n\tcase \"$before\" in\n");
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].value != NULL && strchr(rows[i].value, '|') != NULL)
			printf("\t\t--%s) options='' words='%s' files='' ;;\n", rows[i].name,
				   spaced(rows[i].value, words));
	printf("\t\t*)\n\t\t\t[[ $COMP_CWORD -eq 2 && -n $words ]] && files=''\n"
		   "\t\t\t[[ $COMP_CWORD -eq 1 ]] && words=\"$commands\"\n"
		   "\t\t\t[[ $COMP_CWORD -gt 2 ]] && words=''\n"
		   "\t\t\t[[ $word == -* ]] && words=\"$options\" files='' ;;\n\tesac\n"
		   "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\"\n"
		   "\t\t[[ -z $files ]] || compgen -f -- \"$word\")\n}\n"
		   "complete -o filenames -F _elastiscope elastiscope\n");
	return EXIT_DONE;
}
