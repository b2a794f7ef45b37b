/* The message tree: paths, branches, copies, undo, and the prompt of the active path. */
#include "core/conversation.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int say(struct conversation *c, enum chat_role role, const char *text, const char *reasoning)
{
	struct chat_string said = {text, strlen(text)};
	struct chat_string thought = {reasoning, reasoning ? strlen(reasoning) : 0};
	struct error err;
	int index = conversation_append(c, role, said, thought, &err);
	if (index < 0)
		fail_msg("%s", err.text);
	return index;
}

static void check_prompt(const struct conversation *c, bool generate, const char *expected)
{
	struct prompt prompt = {0};
	struct error err;
	if (conversation_render(c, generate, &prompt, &err))
		fail_msg("%s", err.text);
	assert_string_equal(text_chars(&prompt.text), expected);
	prompt_free(&prompt);
}

static void branches(void **state)
{
	(void)state;
	struct conversation c;
	conversation_init(&c);
	assert_int_equal(say(&c, CHAT_USER, "q", NULL), 0);
	assert_int_equal(say(&c, CHAT_ASSISTANT, "a", "r"), 1);
	assert_int_equal(say(&c, CHAT_USER, "q2", NULL), 2);
	assert_int_equal(say(&c, CHAT_ASSISTANT, "a2", NULL), 3);

	assert_int_equal(conversation_undo(&c), 2); // back before q2
	assert_int_equal(c.active, 1);
	assert_int_equal(say(&c, CHAT_USER, "other", NULL), 4);
	assert_int_equal(c.messages[4].parent, 1);
	assert_int_equal(c.n_messages, 5);

	int *path;
	assert_int_equal(conversation_path(&c, 4, &path, NULL), 3);
	assert_int_equal(path[0], 0);
	assert_int_equal(path[1], 1);
	assert_int_equal(path[2], 4);
	free(path);
	assert_int_equal(conversation_path(&c, NO_MESSAGE, &path, NULL), 0);
	free(path);

	conversation_select(&c, 3);
	struct conversation copy;
	assert_int_equal(conversation_copy_path(&c, c.active, &copy, NULL), 0);
	assert_int_equal(copy.n_messages, 4);
	assert_int_equal(copy.active, 3);
	assert_string_equal(copy.messages[1].reasoning, "r");
	assert_null(copy.messages[3].reasoning);
	assert_int_equal(copy.messages[3].parent, 2);
	conversation_free(&c); // the copy stands alone
	assert_string_equal(copy.messages[3].text, "a2");
	conversation_free(&copy);
}

static void undo_to_the_start(void **state)
{
	(void)state;
	struct conversation c;
	conversation_init(&c);
	assert_int_equal(conversation_undo(&c), NO_MESSAGE);
	say(&c, CHAT_USER, "q", NULL);
	assert_int_equal(conversation_undo(&c), 0);
	assert_int_equal(c.active, NO_MESSAGE);
	assert_int_equal(conversation_undo(&c), NO_MESSAGE);
	assert_int_equal(say(&c, CHAT_USER, "again", NULL), 1);
	assert_int_equal(c.messages[1].parent, NO_MESSAGE);
	conversation_set_system(&c, "S", NULL);
	conversation_clear(&c);
	assert_int_equal(c.n_messages, 0);
	assert_int_equal(c.active, NO_MESSAGE);
	assert_string_equal(c.system, "S");
	assert_int_equal(say(&c, CHAT_USER, "new", NULL), 0);
	conversation_free(&c);
	struct conversation zero = {0};
	conversation_free(&zero);
}

static void prompts(void **state)
{
	(void)state;
	struct conversation c;
	conversation_init(&c);
	check_prompt(&c, false, "<|im_start|>system\n<|im_end|>\n");
	conversation_set_system(&c, "Be brief.", NULL);
	say(&c, CHAT_USER, "Hi", NULL);
	say(&c, CHAT_ASSISTANT, "Hello!", "think");
	check_prompt(&c, false,
				 "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
				 "<|im_start|>assistant\n<think>\nthink\n</think>\nHello!<|im_end|>\n");
	say(&c, CHAT_USER, "How?", NULL);
	check_prompt(&c, true,
				 "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
				 "<|im_start|>assistant\n<think></think>\nHello!<|im_end|>\n<|im_start|>user\nHow?"
				 "<|im_end|>\n<|im_start|>assistant\n<think>\n");
	c.enable_thinking = false;
	c.truncate_history = false;
	assert_int_equal(conversation_set_system(&c, "", NULL), 0);
	assert_null(c.system);
	check_prompt(&c, true,
				 "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
				 "<|im_start|>assistant\n<think>\nthink\n</think>\nHello!<|im_end|>\n"
				 "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n<think></think>");
	struct conversation copy;
	assert_int_equal(conversation_copy_path(&c, 0, &copy, NULL), 0);
	check_prompt(&copy, true,
				 "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
				 "<|im_start|>assistant\n<think></think>");
	conversation_free(&copy);
	conversation_free(&c);
}

static void nul_bytes_are_text(void **state)
{
	(void)state;
	struct conversation c, copy;
	conversation_init(&c);
	struct chat_string text = {"a\0b", 3}, none = {0};
	assert_int_equal(conversation_append(&c, CHAT_USER, text, none, NULL), 0);
	assert_int_equal(conversation_copy_path(&c, 0, &copy, NULL), 0);
	assert_int_equal(copy.messages[0].text_length, 3);
	assert_memory_equal(copy.messages[0].text, "a\0b", 4);
	struct prompt prompt = {0};
	assert_int_equal(conversation_render(&copy, false, &prompt, NULL), 0);
	assert_non_null(memmem(prompt.text.data, prompt.text.length, "a\0b", 3));
	prompt_free(&prompt);
	conversation_free(&copy);
	conversation_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(branches),
		cmocka_unit_test(undo_to_the_start),
		cmocka_unit_test(prompts),
		cmocka_unit_test(nul_bytes_are_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
