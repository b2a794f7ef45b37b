/*
 * An error is one sentence. Functions below cli/ and tui/ return 0 or -1 and take the place for the
 * sentence as their last argument; nothing below prints or exits. The sentence names the thing
 * (file, tensor, flag), what was found and what was expected, and has no newline and no trailing
 * full stop.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

struct error {
	char text[512]; // "" = no error; too long a sentence is cut at a character, never in the middle
};

/* Writes the sentence into err (which may be NULL) and returns -1, so that callers can
 * `return fail(err, "shard %d: ...", i)`. Control characters coming from a file are shown as \xNN.
 */
int fail(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "CONTEXT: " in front of the sentence that err holds already. Returns -1. */
int fail_in(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
