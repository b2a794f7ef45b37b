#include "base/text.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool text_reserve(struct text *text, size_t more)
{
	size_t need, wanted;
	char *grown;
	if (text->failed)
		return false;
	if (__builtin_add_overflow(text->length, more, &need) || need >= PTRDIFF_MAX) {
		text->failed = true;
		return false;
	}
	need++; // the NUL
	if (need <= text->capacity)
		return true;
	wanted = text->capacity + text->capacity / 2;
	if (wanted < need)
		wanted = need;
	if (wanted < 32)
		wanted = 32;
	grown = realloc(text->data, wanted);
	if (!grown) {
		text->failed = true;
		return false;
	}
	text->data = grown;
	text->capacity = wanted;
	text->data[text->length] = 0;
	return true;
}

void text_append(struct text *text, const char *bytes, size_t length)
{
	if (!text_reserve(text, length))
		return;
	if (length)
		memcpy(text->data + text->length, bytes, length);
	text->length += length;
	text->data[text->length] = 0;
}

void text_add(struct text *text, const char *string)
{
	text_append(text, string, strlen(string));
}

void text_add_char(struct text *text, char byte)
{
	text_append(text, &byte, 1);
}

void text_format(struct text *text, const char *format, ...)
{
	va_list arguments, again;
	char brief[256];
	va_start(arguments, format);
	va_copy(again, arguments);
	int n = vsnprintf(brief, sizeof brief, format, arguments);
	if (n < 0) {
		text->failed = true;
	} else if ((size_t)n < sizeof brief) {
		text_append(text, brief, (size_t)n);
	} else if (text_reserve(text, (size_t)n)) {
		vsnprintf(text->data + text->length, (size_t)n + 1, format, again);
		text->length += (size_t)n;
	}
	va_end(again);
	va_end(arguments);
}

void text_clear(struct text *text)
{
	text->length = 0;
	text->failed = false;
	if (text->data)
		text->data[0] = 0;
}

void text_free(struct text *text)
{
	free(text->data);
	*text = (struct text){0};
}

const char *text_chars(const struct text *text)
{
	return text->data ? text->data : "";
}

int text_check(const struct text *text, struct error *err)
{
	return text->failed ? fail(err, "no memory for more than %zu bytes of text", text->length) : 0;
}

char *text_take(struct text *text)
{
	char *taken = NULL;
	if (text_reserve(text, 0)) {
		taken = text->data;
		text->data = NULL;
	}
	text_free(text);
	return taken;
}
