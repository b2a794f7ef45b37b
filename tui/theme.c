/*
 * The built-in theme has attributes only, so that a missing file never leaves a screen without
 * distinctions; theme files put colours on top.
 */
#include "tui/theme.h"
#include "base/file.h"
#include "base/memory.h"
#include <math.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	unsigned attributes; // of the built-in theme
} roles[N_ROLES] = {
	[ROLE_TEXT] = {"text", 0},
	[ROLE_DIM] = {"dim", A_DIM},
	[ROLE_TITLE] = {"title", A_REVERSE},
	[ROLE_TITLE_ON] = {"title-on", A_BOLD},
	[ROLE_HEADING] = {"heading", A_BOLD},
	[ROLE_STATUS] = {"status", A_REVERSE},
	[ROLE_NOTICE] = {"notice", 0},
	[ROLE_ERROR] = {"error", A_BOLD},
	[ROLE_PROMPT] = {"prompt", A_BOLD},
	[ROLE_INPUT] = {"input", 0},
	[ROLE_USER] = {"user", A_BOLD},
	[ROLE_THOUGHT] = {"thought", A_DIM},
	[ROLE_ANSWER] = {"answer", 0},
	[ROLE_MARK] = {"mark", A_REVERSE},
	[ROLE_GOOD] = {"good", 0},
	[ROLE_WARN] = {"warn", A_BOLD},
	[ROLE_BAR] = {"bar", 0},
	[ROLE_FRAME] = {"frame", A_DIM},
	[ROLE_BUDGET_1] = {"budget-1", A_BOLD},
	[ROLE_BUDGET_2] = {"budget-2", 0},
	[ROLE_BUDGET_3] = {"budget-3", A_UNDERLINE},
	[ROLE_BUDGET_4] = {"budget-4", 0},
	[ROLE_BUDGET_5] = {"budget-5", 0},
	[ROLE_BUDGET_6] = {"budget-6", 0},
};

static const char *const color_names[16] = {
	"black",        "red",           "green",       "yellow",         "blue",
	"magenta",      "cyan",          "white",       "bright-black",   "bright-red",
	"bright-green", "bright-yellow", "bright-blue", "bright-magenta", "bright-cyan",
	"bright-white",
};

static const struct {
	const char *name;
	unsigned attribute;
} attributes[] = {{"bold", A_BOLD},
				  {"dim", A_DIM},
				  {"underline", A_UNDERLINE},
				  {"reverse", A_REVERSE},
				  {"standout", A_STANDOUT}};

static const char *const bundled[] = {"default", "light", "mono", "ascii"};

/* Even in lightness and safe for colour-blind eyes (docs/guide.md); dark to light. */
static const uint8_t sequential[] = {16, 235, 54, 89, 161, 204, 209, 216, 222, 194};
static const uint8_t steps[] = {53, 61, 67, 73, 42, 113, 184, 227};
static const uint8_t diverging[] = {130, 208, 179, 223, 231, 153, 139, 61, 53};

static void rgb_of(int color, int rgb[3])
{
	static const uint8_t base[16][3] = {
		{0, 0, 0},       {205, 0, 0},   {0, 205, 0},   {205, 205, 0},
		{0, 0, 238},     {205, 0, 205}, {0, 205, 205}, {229, 229, 229},
		{127, 127, 127}, {255, 0, 0},   {0, 255, 0},   {255, 255, 0},
		{92, 92, 255},   {255, 0, 255}, {0, 255, 255}, {255, 255, 255},
	};
	if (color < 16) {
		for (int i = 0; i < 3; i++)
			rgb[i] = base[color][i];
	} else if (color < 232) {
		int c = color - 16, parts[3] = {c / 36, c / 6 % 6, c % 6};
		for (int i = 0; i < 3; i++)
			rgb[i] = parts[i] ? 55 + 40 * parts[i] : 0;
	} else {
		rgb[0] = rgb[1] = rgb[2] = 8 + 10 * (color - 232);
	}
}

int theme_nearest(int color, int n_colors)
{
	if (color < n_colors)
		return color;
	int wanted[3], best = 0, best_distance = 1 << 30;
	rgb_of(color, wanted);
	for (int i = 0; i < n_colors && i < 16; i++) {
		int rgb[3], distance = 0;
		rgb_of(i, rgb);
		for (int j = 0; j < 3; j++)
			distance += (rgb[j] - wanted[j]) * (rgb[j] - wanted[j]);
		if (distance < best_distance) {
			best_distance = distance;
			best = i;
		}
	}
	return best;
}

enum role role_of_budget(int index)
{
	return index < 0 ? ROLE_TEXT : (enum role)(ROLE_BUDGET_1 + index % N_BUDGET_ROLES);
}

void theme_init(struct theme *theme)
{
	*theme = (struct theme){0};
	for (int i = 0; i < N_ROLES; i++)
		theme->styles[i] = (struct style){-1, -1, roles[i].attributes};
	strcpy(theme->name, "builtin");
}

void theme_free(struct theme *theme)
{
	free(theme->pairs);
	theme->pairs = NULL;
	theme->n_pairs = 0;
}

static int color_parse(const char *word, int *color)
{
	if (strcmp(word, "default") == 0) {
		*color = -1;
		return 0;
	}
	for (int i = 0; i < 16; i++)
		if (strcmp(word, color_names[i]) == 0) {
			*color = i;
			return 0;
		}
	char *end;
	long value = strtol(word, &end, 10);
	if (*word < '0' || *word > '9' || *end || value > 255)
		return -1;
	*color = (int)value;
	return 0;
}

static bool attribute_parse(const char *word, unsigned *out)
{
	for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
		if (strcmp(word, attributes[i].name) == 0) {
			*out |= attributes[i].attribute;
			return true;
		}
	return false;
}

static int role_find(const char *word)
{
	for (int i = 0; i < N_ROLES; i++)
		if (strcmp(word, roles[i].name) == 0)
			return i;
	return -1;
}

static int line_parse(struct theme *theme, char *line, const char *name, int number,
					  struct error *err)
{
	char *save, *word = strtok_r(line, " \t\r", &save);
	if (!word || word[0] == '#')
		return 0;
	if (strcmp(word, "glyphs") == 0) {
		char *what = strtok_r(NULL, " \t\r", &save);
		if (!what || strcmp(what, "ascii") != 0)
			return fail(err, "theme %s: line %d: glyphs %s: expected `glyphs ascii`", name, number,
						what ? what : "");
		theme->ascii = true;
		return 0;
	}
	int role = role_find(word);
	if (role < 0)
		return fail(err, "theme %s: line %d: there is no role %s", name, number, word);
	struct style style = {-1, -1, 0};
	int n_colors = 0;
	while ((word = strtok_r(NULL, " \t\r", &save)) && word[0] != '#') {
		if (attribute_parse(word, &style.attributes))
			continue;
		if (n_colors == 2 || color_parse(word, n_colors ? &style.background : &style.foreground))
			return fail(
				err,
				"theme %s: line %d: %s: expected a colour (default, red, bright-red, 0..255) "
				"or bold, dim, underline, reverse",
				name, number, word);
		n_colors++;
	}
	theme->styles[role] = style;
	return 0;
}

int theme_parse(struct theme *theme, const char *text, const char *name, struct error *err)
{
	struct theme fresh;
	theme_init(&fresh);
	int number = 1;
	for (const char *line = text; *line; number++) {
		size_t length = strcspn(line, "\n");
		char *copy = mem_string(line, length, err);
		if (!copy)
			return -1;
		int result = line_parse(&fresh, copy, name, number, err);
		free(copy);
		if (result)
			return -1;
		line += length + (line[length] == '\n');
	}
	memcpy(theme->styles, fresh.styles, sizeof theme->styles);
	theme->ascii = fresh.ascii;
	snprintf(theme->name, sizeof theme->name, "%s", name);
	return 0;
}

int theme_load(struct theme *theme, const char *name, struct error *err)
{
	if (!*name || strchr(name, '/') || name[0] == '.')
		return fail(err, "theme '%s': a name without / is expected", name);
	char relative[128];
	snprintf(relative, sizeof relative, "themes/%s", name);
	char *path = file_place(PLACE_CONFIG, relative, NULL);
	if (!path || !file_exists(path)) {
		free(path);
		path = file_shared(relative, err);
	}
	if (!path || !file_exists(path)) {
		free(path);
		return fail(err,
					"theme %s: there is no such theme; default, light, mono and ascii come with "
					"the program",
					name);
	}
	struct text text = {0};
	int result = file_read(path, 1 << 20, &text, err);
	if (result == 0)
		result = theme_parse(theme, text_chars(&text), name, err);
	text_free(&text);
	free(path);
	return result;
}

const char *theme_bundled(int i)
{
	return i >= 0 && i < (int)(sizeof bundled / sizeof *bundled) ? bundled[i] : NULL;
}

int theme_pair(struct theme *theme, int foreground, int background)
{
	if (theme->n_colors < 8 || (foreground < 0 && background < 0))
		return 0;
	if (foreground >= 0)
		foreground = theme_nearest(foreground, theme->n_colors);
	if (background >= 0)
		background = theme_nearest(background, theme->n_colors);
	for (int i = 0; i < theme->n_pairs; i++)
		if (theme->pairs[i].foreground == foreground && theme->pairs[i].background == background)
			return i + 1;
	int room = COLOR_PAIRS - 1 < 4096 ? COLOR_PAIRS - 1 : 4096;
	if (theme->n_pairs >= room)
		return 0;
	if (!theme->pairs) {
		theme->pairs = mem_new((size_t)room, sizeof *theme->pairs, NULL);
		if (!theme->pairs)
			return 0;
	}
	if (init_extended_pair(theme->n_pairs + 1, foreground, background) == ERR)
		return 0;
	theme->pairs[theme->n_pairs++] = (struct pair){foreground, background};
	return theme->n_pairs;
}

int theme_ramp(enum ramp ramp, float value)
{
	static const struct {
		const uint8_t *colors;
		int n;
	} ramps[] = {
		{sequential, sizeof sequential}, {steps, sizeof steps}, {diverging, sizeof diverging}};
	if (isnan(value))
		return -1;
	int n = ramps[ramp].n, i = (int)floorf(value * (float)n);
	return ramps[ramp].colors[i < 0 ? 0 : i >= n ? n - 1 : i];
}
