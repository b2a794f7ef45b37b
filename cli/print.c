#include "cli/print.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int print_text(cJSON *root, char *text, struct error *err)
{
	cJSON_Delete(root);
	if (!text)
		return fail(err, "no memory for the JSON");
	puts(text);
	cJSON_free(text);
	return 0;
}

int print_tree(cJSON *root, struct error *err)
{
	return print_text(root, root ? cJSON_Print(root) : NULL, err);
}

int print_line(cJSON *root, struct error *err)
{
	return print_text(root, root ? cJSON_PrintUnformatted(root) : NULL, err);
}

void print_add_number(cJSON *object, const char *key, double value)
{
	if (isfinite(value))
		cJSON_AddNumberToObject(object, key, value);
	else
		cJSON_AddNullToObject(object, key);
}

void print_field(const char *field)
{
	if (!strpbrk(field, ",\"\n")) {
		fputs(field, stdout);
		return;
	}
	putchar('"');
	for (; *field; field++) {
		if (*field == '"')
			putchar('"');
		putchar(*field);
	}
	putchar('"');
}

void print_escaped(const char *text)
{
	for (; *text; text++)
		if (*text == '\n')
			fputs("\\n", stdout);
		else if (*text == '\t')
			fputs("\\t", stdout);
		else if ((unsigned char)*text < 32 || *text == 127)
			printf("\\x%02x", (unsigned)(unsigned char)*text);
		else
			putchar(*text);
}

void print_value(double value)
{
	if (isfinite(value))
		printf(",%.9g", value);
	else
		putchar(',');
}

const char *print_grouped(uint64_t value, char out[32])
{
	char digits[24];
	int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)value), at = 0;
	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			out[at++] = ',';
		out[at++] = digits[i];
	}
	out[at] = '\0';
	return out;
}
