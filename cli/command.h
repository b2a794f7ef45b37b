/*
 * The command line: one table of options feeds parsing, --help, the man page's check and the shell
 * completion; main() looks a subcommand up in another. A command gets every option parsed and
 * checked, and an option that it does not know is wrong usage, never ignored.
 *
 * Results go to stdout and nothing else does; progress, notes and errors go to stderr.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include "base/error.h"
#include "core/engine.h"
#include "core/model.h"
#include "core/upload.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* Options come in groups, a bit each; a command names the groups it takes. */
#define GROUP(bit) (UINT64_C(1) << (bit))
#define GROUP_EVERYWHERE GROUP(0) // --help --version -q
#define GROUP_MODEL GROUP(1)      // which checkpoint and budgets
#define GROUP_DEVICE GROUP(2)     // where and how it runs
#define GROUP_POLICY GROUP(3)     // budget, think, answer, handoff
#define GROUP_SAMPLING GROUP(4)
#define GROUP_THINKING GROUP(5)
#define GROUP_TERMINAL GROUP(6)
#define GROUP_JSON GROUP(7)
#define GROUP_CSV GROUP(8)
#define GROUP_PROMPT GROUP(9)   // -p, --system, --events
#define GROUP_TOKENS GROUP(10)  // --tokens, --text
#define GROUP_LOGITS GROUP(11)  // --out, --taps, --switch
#define GROUP_SPECIAL GROUP(12) // --special
#define GROUP_FIT GROUP(13)     // --fit
#define GROUP_STOP_EOS GROUP(14)
#define GROUP_BUDGET GROUP(15)   // --budget alone
#define GROUP_COMPARE GROUP(16)  // -p, --system, --no-think, --route-from, --lens, --worst
#define GROUP_STUDY GROUP(17)    // --tasks, --grid, --limit, --csv [FILE]
#define GROUP_SESSIONS GROUP(18) // --speed, --verify, --format, --search
#define GROUP_LAB GROUP(19)      // -p, --system, --no-think, --at, --horizon
#define GROUP_ASK GROUP(20)      // -p, --system, --no-think
#define GROUP_ROUTER GROUP(21)   // --sweep, --metric, --tau, --scaler
#define GROUP_CURVE GROUP(22)    // --axis, --step, --widths, --draws, --seed, --write, --tolerance
#define GROUP_MEASURE GROUP(23)  // --text FILE..., --sessions, --out
#define GROUP_SCORES GROUP(24)   // --scores
#define GROUP_EXPORT GROUP(25)   // --source-checkpoint and what else writes a checkpoint
#define GROUP_SLICE GROUP(26)    // --size, --elastic
#define GROUP_QUANTIZE GROUP(27) // --text FILE, --exclude
#define GROUP_VERIFY GROUP(28)   // --explain
#define GROUP_BATCH GROUP(29)    // --batch

struct string_list {
	const char **items;
	size_t n, capacity;
};

/* Every option's value; unset is NULL, false, or the negative value beside it. Strings point into
 * argv. */
struct cli {
	const struct subcommand *command;
	const char *model;           // directory; NULL = $ELASTISCOPE_MODEL, else the bundled demo
	const char *default_model;   // of config.json
	struct string_list defaults; // its values, owned
	const char *budget;          // -b, or after # in the model
	const char *budgets_file, *think, *answer, *read, *policy, *handoff, *device, *math, *kv;
	const char *snapshots; // NULL = as many as a chat counts on
	bool lenient, warm, check, quiet, json, csv;
	int64_t threads, context;               // 0 = by itself
	int64_t seed, n, think_limit, top_k;    // -1 = not given
	double temperature, top_p, min_p, pace; // -1 = not given
	bool no_think, plain, no_color, tour;
	const char *theme, *script, *size;
	struct string_list prompts, switches, arguments; // -p, --switch, what is no option
	const char *system, *events, *tokens, *text, *out, *taps, *fit;
	bool special, stop_eos;
	const char *route_from;
	bool lens, text_only;
	int64_t worst;                // -1 = not given
	const char *tasks, *csv_file; // csv_file: of study; "-" = stdout
	struct string_list grid;
	double tolerance;                           // of inspect mask and against; 0 = not given
	int64_t limit;                              // -1 = not given
	int64_t at, horizon;                        // of lab, -1 = not given
	const char *format, *search;                // of sessions
	struct string_list texts, sessions, scores; // of calibrate; of inspect
	double speed;                               // -1 = not given
	bool verify;
	int64_t sweep;           // -1 = not given
	const char *metric;      // of sweep
	double tau, scaler;      // of the router; -1 = the file's
	struct string_list axes; // of inspect curve, as the next four
	int64_t step, draws;     // -1 = not given
	struct string_list widths;
	const char *write;                       // of inspect boundaries
	const char *source, *target, *precision; // of slice and quantize
	const char *shard_size;                  // NULL = 5GB
	bool force, elastic, explain;
	const char *batch; // of bench: a number or "fit"
	struct string_list exclude;
};

struct subcommand {
	const char *name;
	const char *arguments; // for the usage line, "" = none
	const char *summary;   // one line
	uint64_t groups;
	int min_arguments, max_arguments;  // besides the model, -1 = any
	bool exact;                        // --math is exact by default, else fast
	int (*run)(const struct cli *cli); // an exit code
};

/* The rows, name NULL at the end; the first one, named "", opens the workbench. */
extern const struct subcommand subcommands[];

/* Fills cli from the arguments after the subcommand. -1: the sentence is wrong usage. help and
 * version are set where asked for. */
int cli_parse(struct cli *cli, const struct subcommand *command, int argc, char **argv, bool *help,
			  bool *version, struct error *err);
void cli_free(struct cli *cli);

/* cli/defaults.c: what config.json says; through cli_default(), a value by an option's name. */
int cli_read_defaults(struct cli *cli, struct error *err);
int cli_default(struct cli *cli, const char *name, const char *value, struct error *err);
void cli_help(const struct subcommand *command); // to stdout
int cli_completion(const struct cli *cli);       // the subcommand `completion bash`

/* Prints "elastiscope: SENTENCE" to stderr and returns EXIT_FAILED. */
int cli_fail(const struct error *err);
int cli_usage(const struct error *err); // the same, returns EXIT_USAGE

/* What several commands need. Errors are sentences. */
char *cli_model_directory(const struct cli *cli, struct error *err); // free()
struct model *cli_open_model(const struct cli *cli, struct error *err);
int cli_device_options(const struct cli *cli, struct device_options *options, struct error *err);

/* Where --device says the model runs: options for it, and its backend. Of commands that can run on
 * a card; cli_device_options() refuses cards. auto: a card that can be used, else the CPU. */
const struct backend *cli_device(const struct cli *cli, struct device_options *options,
								 struct error *err);
const char *cli_named_budget(const struct cli *cli); // --budget or DIR#BUDGET, NULL = none
/* model_budget(); of a target, what it chose is said on stderr. */
int cli_find_budget(const struct cli *cli, const struct model *model, const char *name,
					struct budget *budget, struct error *err);
int cli_budget(const struct cli *cli, const struct model *model, struct budget *budget,
			   struct error *err); // --budget, else the parent
/* What the options ask of a turn; unset ones as the checkpoint recommends. */
int cli_settings(const struct cli *cli, const struct model *model, struct turn_settings *settings,
				 struct error *err);

/* "1,2,3" or whitespace between; free(*ids). */
int cli_token_list(const char *text, int32_t **ids, int *n, struct error *err);

/* What --tokens lists, or the ids of --text (raw: no chat format, special tokens with --special);
 * free(*ids). */
int cli_ids(const struct cli *cli, const struct model *model, int32_t **ids, int *n,
			struct error *err);

/* slice_build() for a command without an engine: weights are uploaded first, with their progress
 * on a terminal. */
int cli_build_slice(const struct cli *cli, const struct upload *to, const struct model *model,
					const struct budget *budget, struct slice *slice, struct error *err);

/* A local engine with the options' device, context and log (record NULL = none), and the model
 * open: waits for EV_OPENED. *model is counted. NULL and err when the model can't be opened. */
struct engine *cli_open_engine(const struct cli *cli,
							   int (*record)(void *, const struct event *, struct error *),
							   void *record_user, struct model **model, struct error *err);

/* One file each. */
int cli_workbench(const struct cli *cli);
int cli_chat(const struct cli *cli);
int cli_complete(const struct cli *cli);
int cli_logits(const struct cli *cli);
int cli_lab(const struct cli *cli);
int cli_tokens(const struct cli *cli);
int cli_tokenize(const struct cli *cli);
int cli_detokenize(const struct cli *cli);
int cli_render(const struct cli *cli);
int cli_info(const struct cli *cli);
int cli_inspect(const struct cli *cli);
int cli_compare(const struct cli *cli);
int cli_bench(const struct cli *cli);
int cli_doctor(const struct cli *cli);
int cli_study(const struct cli *cli);
int cli_sessions(const struct cli *cli);
int cli_calibrate(const struct cli *cli);
int cli_slice(const struct cli *cli);
int cli_quantize(const struct cli *cli);
int cli_verify(const struct cli *cli);

#endif
