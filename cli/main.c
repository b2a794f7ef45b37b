/* main() is a table look-up: a subcommand is a row. */
#include "cli/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RUNS (GROUP_MODEL | GROUP_DEVICE | GROUP_POLICY | GROUP_SAMPLING | GROUP_THINKING)

const struct subcommand subcommands[] = {
	{"", "", "open the workbench", RUNS | GROUP_TERMINAL, 0, 0, false, cli_workbench},
	{"chat", "", "one conversation from -p TEXT, or an interactive line chat",
	 RUNS | GROUP_PROMPT | GROUP_JSON, 0, 0, false, cli_chat},
	{"complete", "", "raw continuation of --tokens or --text, no chat format",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_BUDGET | GROUP_SAMPLING | GROUP_TOKENS | GROUP_STOP_EOS |
		 GROUP_JSON,
	 0, 0, true, cli_complete},
	{"logits", "", "logits of every position into a safetensors file",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_BUDGET | GROUP_TOKENS | GROUP_SPECIAL | GROUP_LOGITS, 0, 0,
	 true, cli_logits},
	{"tokenize", "", "lines of stdin to ids; --json: a JSON string a line to an array",
	 GROUP_MODEL | GROUP_SPECIAL | GROUP_JSON, 0, 0, true, cli_tokenize},
	{"detokenize", "", "lines of ids to text; --json: an array a line to a JSON string",
	 GROUP_MODEL | GROUP_JSON, 0, 0, true, cli_detokenize},
	{"render", "FILE.json", "messages to the prompt's text, needs no model", 0, 1, 1, true,
	 cli_render},
	{"info", "", "what the checkpoint is: sizes, budgets, bytes, and where each fact comes from",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_FIT | GROUP_JSON, 0, 0, true, cli_info},
	{"inspect",
	 "nesting|importance|agreement|masks|router|experts|curve|sensitivity|boundaries|mask|bisect|"
	 "against|scales "
	 "[ARGUMENTS]",
	 "the views, as tables, and what a text says of every width",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_BUDGET | GROUP_TOKENS | GROUP_SPECIAL | GROUP_ROUTER |
		 GROUP_CURVE | GROUP_SCORES | GROUP_JSON | GROUP_CSV,
	 1, 3, true, cli_inspect},
	{"compare", "A B [C]", "how far budgets (or DIR#BUDGET) are from A, and where it comes from",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_SAMPLING | GROUP_TOKENS | GROUP_SPECIAL | GROUP_COMPARE |
		 GROUP_JSON | GROUP_CSV,
	 2, 3, true, cli_compare},
	{"tokens", "",
	 "what every budget says at each token: the likeliest ids, rank and p of the actual",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_BUDGET | GROUP_SAMPLING | GROUP_TOKENS | GROUP_SPECIAL |
		 GROUP_ASK | GROUP_JSON | GROUP_CSV,
	 0, 0, true, cli_tokens},
	{"lab", "FROM TO", "one switch of budget: what carry loses, what repair and re-prefill cost",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_TOKENS | GROUP_SPECIAL | GROUP_LAB | GROUP_JSON | GROUP_CSV,
	 2, 2, true, cli_lab},
	{"slice", "", "a budget as a checkpoint of its own, byte for byte the leading slices",
	 GROUP_EXPORT | GROUP_SLICE, 0, 0, true, cli_slice},
	{"quantize", "", "a nested FP8 or NVFP4 parent, so that every budget stays a slice of it",
	 GROUP_EXPORT | GROUP_QUANTIZE | GROUP_JSON, 0, 0, true, cli_quantize},
	{"verify", "PARENT CHILD", "a child held against its parent's slice, bit for bit",
	 GROUP_BUDGET | GROUP_VERIFY | GROUP_JSON | GROUP_CSV, 2, 2, true, cli_verify},
	{"bench", "", "load, prefill, decode, switches, screen, kernels",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_BATCH | GROUP_CSV, 0, 0, false, cli_bench},
	{"study", "", "tasks answered in every cell of a grid: accuracy against latency",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_POLICY | GROUP_SAMPLING | GROUP_THINKING | GROUP_STUDY |
		 GROUP_JSON,
	 0, 0, false, cli_study},
	{"sessions", "list|show|export|replay [FILE|NUMBER]",
	 "what was recorded: list, show, export, replay, verify",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_SESSIONS | GROUP_TERMINAL | GROUP_JSON | GROUP_CSV, 1, 2,
	 false, cli_sessions},
	{"calibrate", "", "every importance score, measured on texts or sessions; kept for inspect",
	 GROUP_MODEL | GROUP_DEVICE | GROUP_SPECIAL | GROUP_MEASURE | GROUP_JSON | GROUP_CSV, 0, 0,
	 true, cli_calibrate},
	{"doctor", "", "processor, libraries, terminal, model", GROUP_MODEL | GROUP_DEVICE | GROUP_JSON,
	 0, 0, false, cli_doctor},
	{"completion", "bash", "the shell's completion, to stdout", 0, 1, 1, true, cli_completion},
	{0},
};

static const struct subcommand *subcommand_find(const char *name)
{
	for (const struct subcommand *row = subcommands + 1; row->name; row++)
		if (strcmp(row->name, name) == 0)
			return row;
	return NULL;
}

/* Without a command, a word that is neither one nor a path was meant to be one. */
static int check_word(const struct cli *cli, struct error *err)
{
	const char *word = cli->model;
	if (cli->command != subcommands || !word || strpbrk(word, "/#") || word[0] == '\0' ||
		access(word, F_OK) == 0)
		return 0;
	if (subcommand_find(word))
		return fail(err, "%s: a command comes first: elastiscope %s ...", word, word);
	return fail(err, "%s: no such command and no such directory; --help lists the commands", word);
}

int main(int argc, char **argv)
{
	const struct subcommand *command = argc > 1 ? subcommand_find(argv[1]) : NULL;
	int skipped = command != NULL; // argv[skipped] stands for the program's name
	if (!command)
		command = subcommands;
	if (!isatty(STDOUT_FILENO)) // most output is one write, whose errno is known at the end
		setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	struct cli cli;
	struct error err = {0};
	bool help = false, version = false;
	int code;
	if (cli_parse(&cli, command, argc - skipped, argv + skipped, &help, &version, &err) < 0) {
		code = cli_usage(&err);
	} else if (help) {
		cli_help(command);
		code = EXIT_DONE;
	} else if (version) {
		printf("elastiscope %s\n", ELASTISCOPE_VERSION);
		code = EXIT_DONE;
	} else if (check_word(&cli, &err) < 0) {
		code = cli_usage(&err);
	} else {
		code = command->run(&cli);
	}
	cli_free(&cli);
	errno = 0;
	if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
		if (errno == 0 && putchar('\n') != EOF)
			fflush(stdout); // what failed on the way has left no reason: one more byte will
		fail(&err, "standard output: %s", errno != 0 ? strerror(errno) : "can't be written");
		code = cli_fail(&err);
	}
	return code;
}
