#include "base/utf8.h"
#include <string.h>

/* What may follow a lead byte: the length of the character and the range of its second byte, which
 * is where overlong forms, surrogates and codes above U+10FFFF are refused (Unicode, table 3-7). */
struct lead {
	int length;
	unsigned char low, high;
};

static struct lead lead_of(unsigned char byte)
{
	if (byte >= 0xc2 && byte <= 0xdf)
		return (struct lead){2, 0x80, 0xbf};
	if (byte >= 0xe0 && byte <= 0xef)
		return (struct lead){3, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf};
	if (byte >= 0xf0 && byte <= 0xf4)
		return (struct lead){4, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf};
	return (struct lead){0, 0, 0};
}

int utf8_decode(const char *bytes, size_t length, uint32_t *code)
{
	const unsigned char *p = (const unsigned char *)bytes;
	if (p[0] < 0x80) {
		*code = p[0];
		return 1;
	}
	struct lead lead = lead_of(p[0]);
	if (!lead.length)
		return -1;
	uint32_t value = p[0] & (0x7fu >> lead.length);
	for (int i = 1; i < lead.length; i++) {
		if ((size_t)i >= length)
			return 0;
		if (p[i] < (i == 1 ? lead.low : 0x80) || p[i] > (i == 1 ? lead.high : 0xbf))
			return -i;
		value = value << 6 | (p[i] & 0x3f);
	}
	*code = value;
	return lead.length;
}

int utf8_encode(uint32_t code, char out[4])
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xc0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	if (code < 0x10000) {
		out[0] = (char)(0xe0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3f));
		out[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3f));
	out[2] = (char)(0x80 | (code >> 6 & 0x3f));
	out[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

bool utf8_valid(const char *bytes, size_t length, size_t *at)
{
	size_t i = 0;
	while (i < length) {
		uint64_t eight;
		uint32_t code;
		if (length - i >= sizeof eight) {
			memcpy(&eight, bytes + i, sizeof eight);
			if (!(eight & 0x8080808080808080u)) {
				i += sizeof eight;
				continue;
			}
		}
		int n = utf8_decode(bytes + i, length - i, &code);
		if (n <= 0)
			break;
		i += (size_t)n;
	}
	if (at)
		*at = i;
	return i >= length;
}
