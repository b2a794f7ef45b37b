#include "tui/cells.h"
#include "base/utf8.h"
#include <stdbool.h>

static bool turns_direction(uint32_t code)
{
	return (code >= 0x200e && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
		   (code >= 0x2066 && code <= 0x2069) || code == 0xfeff || code == 0x2028 || code == 0x2029;
}

int cells_next(const char *bytes, size_t length, size_t *used, uint32_t *code)
{
	int n = utf8_decode(bytes, length, code);
	if (n <= 0) { // ill-formed, or cut short: the rest is one replacement
		*used = n < 0 ? (size_t)-n : length;
		*code = 0xfffd;
		return 1;
	}
	*used = (size_t)n;
	if (*code == '\t') {
		*code = ' ';
		return CELLS_TAB;
	}
	if (*code < 0x20 || *code == 0x7f) {
		*code = CELLS_CONTROL + (*code ^ 0x40);
		return 2;
	}
	if (turns_direction(*code)) {
		*code = 0;
		return 0;
	}
	int width = utf8_width(*code);
	if (width < 0) {
		*code = 0xfffd;
		return 1;
	}
	return width;
}

int cells_width(const char *bytes, size_t length)
{
	int width;
	cells_fit(bytes, length, 1 << 30, &width);
	return width;
}

size_t cells_fit(const char *bytes, size_t length, int columns, int *width)
{
	size_t at = 0;
	*width = 0;
	while (at < length) {
		size_t used;
		uint32_t code;
		int w = cells_next(bytes + at, length - at, &used, &code);
		if (*width + w > columns)
			break;
		*width += w;
		at += used;
	}
	return at;
}

size_t cells_wrap(const char *bytes, size_t length, int columns, size_t *next)
{
	size_t at = 0, word_end = 0, word_next = 0; // the last blank: before it, behind it
	int width = 0;
	while (at < length && bytes[at] != '\n') {
		size_t used;
		uint32_t code;
		int w = cells_next(bytes + at, length - at, &used, &code);
		bool blank = bytes[at] == ' ' || bytes[at] == '\t';
		if (width + w > columns && !blank) {
			if (word_next > 0) { // back to the last blank
				*next = word_next;
				return word_end;
			}
			*next = at > 0 ? at : used;
			return at > 0 ? at : used;
		}
		if (blank) {
			if (at == 0 || (bytes[at - 1] != ' ' && bytes[at - 1] != '\t'))
				word_end = at;
			word_next = at + used;
		}
		width += w;
		at += used;
		if (blank && width > columns) { // blanks at the edge vanish
			size_t over = at;
			while (over < length && bytes[over] == ' ')
				over++;
			if (over < length && bytes[over] == '\n')
				over++;
			*next = over;
			return word_end;
		}
	}
	*next = at < length ? at + 1 : at; // the newline
	return at;
}
