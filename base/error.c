/*
 * Sentences are formatted aside and then copied, so that the arguments may point into the error
 * itself
 * (`fail(err, "...: %s", err->text)`). What a terminal could obey or a log could not hold (control
 * characters, bytes that are no UTF-8) is spelled out here, in one place for the whole program.
 */
#include "base/error.h"
#include "base/utf8.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Appends what is printable of one character and returns the bytes read of `from`. Sets *at beyond
 * the end when there is no room, so that nothing is added afterwards. */
static size_t copy_character(char *out, size_t size, size_t *at, const char *from, size_t length)
{
	char shown[16];
	uint32_t code = 0;
	int n = utf8_decode(from, length, &code);
	size_t read = n > 0 ? (size_t)n : 1, written = read;
	if (n > 0 && utf8_width(code) >= 0) {
		memcpy(shown, from, read);
	} else {
		written = 0;
		for (size_t i = 0; i < read; i++)
			written += (size_t)snprintf(shown + written, sizeof shown - written, "\\x%02x",
										(unsigned)(unsigned char)from[i]);
	}
	if (*at + written >= size) {
		out[*at < size ? *at : size - 1] = 0;
		*at = size;
		return read;
	}
	memcpy(out + *at, shown, written);
	*at += written;
	out[*at] = 0;
	return read;
}

static void put_sentence(struct error *err, const char *sentence)
{
	size_t at = 0, length = strlen(sentence);
	err->text[0] = 0;
	for (size_t i = 0; i < length && at < sizeof err->text;)
		i += copy_character(err->text, sizeof err->text, &at, sentence + i, length - i);
}

int fail(struct error *err, const char *format, ...)
{
	char sentence[2048];
	va_list arguments;
	if (!err)
		return -1;
	va_start(arguments, format);
	if (vsnprintf(sentence, sizeof sentence, format, arguments) < 0)
		snprintf(sentence, sizeof sentence, "%s", format);
	va_end(arguments);
	put_sentence(err, sentence);
	return -1;
}

int fail_in(struct error *err, const char *format, ...)
{
	char sentence[2048 + sizeof err->text];
	va_list arguments;
	if (!err)
		return -1;
	va_start(arguments, format);
	int n = vsnprintf(sentence, 2048, format, arguments);
	va_end(arguments);
	size_t length = n < 0 ? 0 : n < 2048 ? (size_t)n : 2047;
	snprintf(sentence + length, sizeof sentence - length, "%s%s", length ? ": " : "", err->text);
	put_sentence(err, sentence);
	return -1;
}
