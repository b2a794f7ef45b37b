/* render FILE.json: messages to the text of the prompt, byte for byte, no newline added. Needs no
 * model. */
#include "base/file.h"
#include "cli/command.h"
#include "core/chat.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)1 << 28)

static int read_stdin(struct text *out, struct error *err)
{
	char part[4096];
	size_t n;
	while ((n = fread(part, 1, sizeof part, stdin)) > 0 && out->length <= MAX_FILE_BYTES)
		text_append(out, part, n);
	if (ferror(stdin))
		return fail(err, "standard input: %s", strerror(errno));
	if (out->length > MAX_FILE_BYTES)
		return fail(err, "standard input: more than %zu bytes", MAX_FILE_BYTES);
	return text_check(out, err);
}

int cli_render(const struct cli *cli)
{
	const char *path = cli->arguments.items[0];
	struct error err = {0};
	struct text file = {0};
	struct prompt prompt = {0};
	bool piped = strcmp(path, "-") == 0;
	int result = piped ? read_stdin(&file, &err) : file_read(path, MAX_FILE_BYTES, &file, &err);
	if (result == 0) {
		result = chat_render_json(text_chars(&file), file.length, &prompt, &err);
		if (result)
			fail_in(&err, "%s", piped ? "standard input" : path);
	}
	if (result == 0 &&
		(fwrite(text_chars(&prompt.text), 1, prompt.text.length, stdout) != prompt.text.length ||
		 fflush(stdout)))
		result = fail(&err, "standard output: %s", strerror(errno));
	prompt_free(&prompt);
	text_free(&file);
	return result ? cli_fail(&err) : EXIT_DONE;
}
