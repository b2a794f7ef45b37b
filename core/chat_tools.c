#include "core/chat_tools.h"
#include "core/python_text.h"
#include <string.h>

/* The example's <tool_call> tags are special tokens here as everywhere in the template. */
static const char introduction[] =
	"# Tools\n\nYou have access to the following functions:\n\n<tools>";
static const char instructions[] =
	"\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO "
	"suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\n"
	"value_1\n</parameter>\n<parameter=example_parameter_2>\nThis is the value for the second "
	"parameter\nthat can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n"
	"<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: an inner "
	"<function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- "
	"Required parameters MUST be specified\n- You may provide optional reasoning for your function "
	"call in natural language BEFORE the function call, but NOT after\n- If there is no function "
	"call available, answer the question like normal with your current knowledge and do not tell "
	"the user about function calls\n</IMPORTANT>";

enum how { AS_STR, AS_STRIPPED, AS_JSON };

static void put_value(const struct json *json, const struct json_node *value, enum how how,
					  struct prompt *out)
{
	struct text text = {0};
	if (how == AS_JSON)
		python_json(json, value, &text);
	else
		python_str(json, value, &text);
	const char *bytes = text_chars(&text);
	size_t length = text.length;
	if (how == AS_STRIPPED)
		python_strip(&bytes, &length);
	if (text.failed)
		out->text.failed = true;
	else
		prompt_append(out, bytes, length, TRUST_NONE);
	text_free(&text);
}

/* "\n<TAG>VALUE</TAG>", nothing without a value. */
static void put_tagged(const struct json *json, const char *tag, const struct json_node *value,
					   enum how how, struct prompt *out)
{
	if (!value)
		return;
	prompt_add(out, "\n<", TRUST_ALL);
	prompt_add(out, tag, TRUST_ALL);
	prompt_add(out, ">", TRUST_ALL);
	put_value(json, value, how, out);
	prompt_add(out, "</", TRUST_ALL);
	prompt_add(out, tag, TRUST_ALL);
	prompt_add(out, ">", TRUST_ALL);
}

static enum how scalar_or_json(const struct json_node *value)
{
	return json_is(value, JSON_OBJECT) || json_is(value, JSON_ARRAY) ? AS_JSON : AS_STR;
}

/* The members that have no place of their own, under tags named like their keys. */
static void put_extras(const struct json *json, const struct json_node *object,
					   const char *const *handled, struct prompt *out)
{
	if (!json_is(object, JSON_OBJECT))
		return;
	const struct json_node *key = json_first(json, object);
	for (; key; key = json_next(json, object, key)) {
		const char *const *name = handled;
		while (*name && !json_equals(json, key, *name))
			name++;
		if (*name)
			continue;
		const struct json_node *value = json_value(key);
		prompt_add(out, "\n<", TRUST_ALL);
		put_value(json, key, AS_STR, out);
		prompt_add(out, ">", TRUST_ALL);
		put_value(json, value, scalar_or_json(value), out);
		prompt_add(out, "</", TRUST_ALL);
		put_value(json, key, AS_STR, out);
		prompt_add(out, ">", TRUST_ALL);
	}
}

static void put_parameters(const struct json *json, const struct json_node *parameters,
						   struct prompt *out)
{
	static const char *const of_parameter[] = {"name", "type", "description", "enum", NULL};
	static const char *const of_all[] = {"type", "properties", "required", NULL};
	const struct json_node *properties = json_member(json, parameters, "properties");
	prompt_add(out, "\n<parameters>", TRUST_ALL);
	if (json_is(properties, JSON_OBJECT)) {
		const struct json_node *key = json_first(json, properties);
		for (; key; key = json_next(json, properties, key)) {
			const struct json_node *fields = json_value(key);
			prompt_add(out, "\n<parameter>", TRUST_ALL);
			put_tagged(json, "name", key, AS_STR, out);
			put_tagged(json, "type", json_member(json, fields, "type"), AS_STR, out);
			put_tagged(json, "description", json_member(json, fields, "description"), AS_STRIPPED,
					   out);
			put_tagged(json, "enum", json_member(json, fields, "enum"), AS_JSON, out);
			put_extras(json, fields, of_parameter, out);
			prompt_add(out, "\n</parameter>", TRUST_ALL);
		}
	}
	put_extras(json, parameters, of_all, out);
	put_tagged(json, "required", json_member(json, parameters, "required"), AS_JSON, out);
	prompt_add(out, "\n</parameters>", TRUST_ALL);
}

/* {"type": "function", "function": {...}}, or what is inside, alone. */
static const struct json_node *inner_function(const struct json *json, const struct json_node *node)
{
	const struct json_node *inner = json_member(json, node, "function");
	return inner ? inner : node;
}

int chat_tools_list(const struct json *json, const struct json_node *tools, struct prompt *out,
					struct error *err)
{
	static const char *const of_function[] = {"type", "name", "description", "parameters", NULL};
	prompt_add(out, introduction, TRUST_ALL);
	int i = 0;
	const struct json_node *at = json_first(json, tools);
	for (; at; at = json_next(json, tools, at), i++) {
		const struct json_node *function = inner_function(json, at);
		const struct json_node *name = json_member(json, function, "name");
		if (!json_is(name, JSON_STRING))
			return fail(err, "tool %d has no \"name\"", i);
		prompt_add(out, "\n<function>", TRUST_ALL);
		put_tagged(json, "name", name, AS_STR, out);
		put_tagged(json, "description", json_member(json, function, "description"), AS_STRIPPED,
				   out);
		put_parameters(json, json_member(json, function, "parameters"), out);
		put_extras(json, function, of_function, out);
		prompt_add(out, "\n</function>", TRUST_ALL);
	}
	prompt_add(out, instructions, TRUST_ALL);
	return 0;
}

static int put_arguments(const struct json *json, const struct json_node *arguments,
						 struct prompt *out, struct error *err)
{
	if (!json_is(arguments, JSON_OBJECT))
		return fail(err, "the arguments are not an object");
	const struct json_node *key = json_first(json, arguments);
	for (; key; key = json_next(json, arguments, key)) {
		const struct json_node *value = json_value(key);
		prompt_add(out, "<parameter=", TRUST_ALL);
		put_value(json, key, AS_STR, out);
		prompt_add(out, ">\n", TRUST_ALL);
		put_value(json, value, scalar_or_json(value), out);
		prompt_add(out, "\n</parameter>\n", TRUST_ALL);
	}
	return 0;
}

/* OpenAI's own form: the object's JSON in a string. */
static int put_quoted_arguments(const struct json *json, const struct json_node *arguments,
								struct prompt *out, struct error *err)
{
	struct text source = {0};
	struct json inner = {0};
	json_string(json, arguments, &source);
	int result = text_check(&source, err);
	if (result == 0)
		result = json_parse(&inner, text_chars(&source), source.length, err);
	if (result == 0)
		result = put_arguments(&inner, inner.nodes, out, err);
	json_free(&inner);
	text_free(&source);
	return result;
}

int chat_tools_calls(const struct json *json, const struct json_node *calls, struct prompt *out,
					 struct error *err)
{
	int i = 0;
	const struct json_node *at = json_first(json, calls);
	for (; at; at = json_next(json, calls, at), i++) {
		const struct json_node *function = inner_function(json, at);
		const struct json_node *name = json_member(json, function, "name");
		const struct json_node *arguments = json_member(json, function, "arguments");
		if (!json_is(name, JSON_STRING))
			return fail(err, "tool call %d has no \"name\"", i);
		prompt_add(out, "<tool_call>\n<function=", TRUST_ALL);
		put_value(json, name, AS_STR, out);
		prompt_add(out, ">\n", TRUST_ALL);
		int result = 0;
		if (json_is(arguments, JSON_STRING))
			result = put_quoted_arguments(json, arguments, out, err);
		else if (arguments)
			result = put_arguments(json, arguments, out, err);
		if (result)
			return fail_in(err, "tool call %d", i);
		prompt_add(out, "</function>\n</tool_call>\n", TRUST_ALL);
	}
	return 0;
}
