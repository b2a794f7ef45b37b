/*
 * The two places of the chat format where JSON becomes text for the model: the list of tools in the
 * system block and the calls in an assistant's turn (specification, 8.2 and 8.4).
 */
#ifndef CORE_CHAT_TOOLS_H
#define CORE_CHAT_TOOLS_H

#include "base/error.h"
#include "base/json.h"
#include "core/prompt.h"

/* From "# Tools" to "</IMPORTANT>". tools is an array in OpenAI form, not empty. */
int chat_tools_list(const struct json *json, const struct json_node *tools, struct prompt *out,
					struct error *err);

/* One <tool_call> block for each element of the array. */
int chat_tools_calls(const struct json *json, const struct json_node *calls, struct prompt *out,
					 struct error *err);

#endif
