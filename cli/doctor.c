/* doctor: what this machine offers and what the program makes of it. */
#include "cli/command.h"
#include "core/finite.h"
#include "kernels/gpu.h"

#include "tui/line.h"
#include "tui/screen.h"
#include <cjson/cJSON.h>
#include <gnu/libc-version.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* "model name" and the SIMD part of "flags" of the first processor. */
static void read_cpu(char *name, size_t name_size, char *flags, size_t flags_size)
{
	static const char *const wanted[] = {"avx2",        "fma",      "f16c",
										 "avx512f",     "avx512bw", "avx512_bf16",
										 "avx512_vnni", "amx_bf16", "amx_int8"};
	snprintf(name, name_size, "unknown");
	flags[0] = '\0';
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[8192];
	while (file && fgets(line, sizeof line, file)) {
		char *value = strchr(line, ':');
		if (!value)
			continue;
		value += strspn(value, ": \t");
		value[strcspn(value, "\n")] = '\0';
		if (strncmp(line, "model name", 10) == 0) {
			snprintf(name, name_size, "%s", value);
		} else if (strncmp(line, "flags", 5) == 0) {
			for (char *word = strtok(value, " "); word; word = strtok(NULL, " "))
				for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
					if (strcmp(word, wanted[i]) == 0 && strlen(flags) + 16 < flags_size)
						snprintf(flags + strlen(flags), flags_size - strlen(flags), "%s%s",
								 flags[0] != '\0' ? " " : "", word);
			break;
		}
	}
	if (file)
		fclose(file);
}

static cJSON *cpu_part(const struct cli *cli, char *rung, size_t rung_size, struct error *err)
{
	char name[256], flags[256];
	read_cpu(name, sizeof name, flags, sizeof flags);
	struct device_options options;
	struct cli on_cpu = *cli;
	on_cpu.device = NULL;
	if (cli_device_options(&on_cpu, &options, err) < 0)
		return NULL;
	struct device *device = backend_cpu.open(&options, err);
	if (!device)
		return NULL;
	snprintf(rung, rung_size, "%s", backend_cpu.rung(device));
	cJSON *cpu = cJSON_CreateObject();
	cJSON_AddStringToObject(cpu, "name", name);
	cJSON_AddStringToObject(cpu, "features", flags);
	cJSON_AddNumberToObject(cpu, "threads", backend_cpu.threads(device));
	backend_cpu.close(device);
	return cpu;
}

static void add_reading(char *out, size_t size, double value, double unit, const char *suffix)
{
	size_t used = strlen(out);
	if (value < 0)
		snprintf(out + used, size - used, "%sN/A %s", used ? ", " : "", suffix);
	else
		snprintf(out + used, size - used, "%s%.*f %s", used ? ", " : "", unit == 1e9, value / unit,
				 suffix);
}

static const char *card_now(const struct gpu_card *card, char *out, size_t size)
{
	out[0] = '\0';
	add_reading(out, size, (double)card->used_bytes, 1e9, "GB in use");
	add_reading(out, size, card->power_mw, 1e3, "W");
	add_reading(out, size, card->clock_mhz, 1, "MHz");
	add_reading(out, size, card->temperature_c, 1, "C");
	add_reading(out, size, card->busy_percent, 1, "% busy");
	return out;
}

/* What is missing for --device cuda, if anything. */
static cJSON *cuda_part(void)
{
	struct gpu_facts facts;
	char version[32];
	cJSON *part = cJSON_CreateObject();
	gpu_facts(&facts);
	cJSON_AddStringToObject(part, "usable", facts.problem.text[0] ? facts.problem.text : "yes");
	if (!facts.built)
		return part;
	snprintf(version, sizeof version, "%d.%d", facts.runtime / 1000, facts.runtime % 100 / 10);
	cJSON_AddStringToObject(part, "runtime", version);
	snprintf(version, sizeof version, "%d.%d", facts.driver / 1000, facts.driver % 100 / 10);
	cJSON_AddStringToObject(part, "driver", facts.driver ? version : "none");
	cJSON_AddStringToObject(part, "nvml", facts.nvml ? "found" : "missing: no gauges");
	cJSON_AddStringToObject(part, "cublasLt", facts.cublas ? "found" : "missing: own products");
	for (int i = 0; i < facts.n_cards; i++) {
		char name[16], what[128];
		snprintf(name, sizeof name, "card %d", i);
		snprintf(what, sizeof what, "%s, sm_%d, %.1f GB", facts.cards[i].name,
				 facts.cards[i].capability, (double)facts.cards[i].bytes / 1e9);
		cJSON_AddStringToObject(part, name, what);
		snprintf(name, sizeof name, "card %d now", i);
		cJSON_AddStringToObject(part, name, card_now(&facts.cards[i], what, sizeof what));
	}
	return part;
}

static cJSON *libraries_part(void)
{
	char pcre2[64] = "";
	pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
	cJSON *libraries = cJSON_CreateObject();
	cJSON_AddStringToObject(libraries, "libc", gnu_get_libc_version());
	cJSON_AddStringToObject(libraries, "ncurses", screen_ncurses_version());
	cJSON_AddStringToObject(libraries, "readline", line_readline_version());
	cJSON_AddStringToObject(libraries, "pcre2", pcre2);
	cJSON_AddStringToObject(libraries, "cjson", cJSON_Version());
	return libraries;
}

static cJSON *terminal_part(void)
{
	const char *term = getenv("TERM");
	cJSON *terminal = cJSON_CreateObject();
	cJSON_AddStringToObject(terminal, "TERM", term ? term : "");
	cJSON_AddBoolToObject(terminal, "tty", isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
	cJSON_AddBoolToObject(terminal, "no_color", getenv("NO_COLOR") != NULL);
	return terminal;
}

/* The model is opened too: a doctor that does not look at it would miss the commonest illness. */
static cJSON *model_part(const struct cli *cli)
{
	struct error err = {0};
	cJSON *part = cJSON_CreateObject();
	char *directory = cli_model_directory(cli, &err);
	struct model *model = directory ? cli_open_model(cli, &err) : NULL;
	cJSON_AddStringToObject(part, "directory", directory ? directory : "");
	if (model) {
		cJSON_AddStringToObject(part, "hash", model->hash);
		cJSON_AddNumberToObject(part, "budgets", model->elastic.n_budgets);
		if (finite_check(&model->checkpoint, NULL, NULL, &err) < 0)
			cJSON_AddStringToObject(part, "error", err.text);
		else
			cJSON_AddStringToObject(part, "values", "all finite");
	} else {
		cJSON_AddStringToObject(part, "error", err.text);
	}
	model_release(model);
	free(directory);
	return part;
}

static void print_part(const char *name, const cJSON *part)
{
	if (cJSON_IsObject(part)) {
		for (const cJSON *item = part->child; item; item = item->next) {
			char whole[128];
			snprintf(whole, sizeof whole, "%s %s", name, item->string);
			print_part(whole, item);
		}
		return;
	}
	char *text = cJSON_IsString(part) ? NULL : cJSON_PrintUnformatted(part);
	printf("%-22s %s\n", name, text ? text : part->valuestring);
	cJSON_free(text);
}

int cli_doctor(const struct cli *cli)
{
	setlocale(LC_ALL, "");
	struct error err = {0};
	char rung[32] = "";
	cJSON *cpu = cpu_part(cli, rung, sizeof rung, &err);
	if (!cpu)
		return cli_fail(&err);
	cJSON *report = cJSON_CreateObject();
	cJSON_AddItemToObject(report, "cpu", cpu);
	cJSON_AddStringToObject(report, "rung", rung);
	cJSON_AddItemToObject(report, "cuda", cuda_part());
	cJSON_AddItemToObject(report, "terminal", terminal_part());
	cJSON *locale = cJSON_AddObjectToObject(report, "locale");
	cJSON_AddStringToObject(locale, "name", setlocale(LC_CTYPE, NULL));
	cJSON_AddStringToObject(locale, "charset", nl_langinfo(CODESET));
	cJSON_AddItemToObject(report, "libraries", libraries_part());
	cJSON *model = model_part(cli);
	cJSON_AddItemToObject(report, "model", model);
	if (cli->json) {
		char *text = cJSON_Print(report);
		puts(text);
		cJSON_free(text);
	} else {
		for (const cJSON *part = report->child; part; part = part->next)
			print_part(part->string, part);
	}
	int code = cJSON_HasObjectItem(model, "error") ? EXIT_FAILED : EXIT_DONE;
	cJSON_Delete(report);
	return code;
}
