/*
 * How Python prints what came from JSON, because the chat template is a Jinja template: str(),
 * repr(), json.dumps(ensure_ascii=False) and str.strip(). A model sees these characters, so they
 * have to be exactly the ones it was trained on.
 */
#ifndef CORE_PYTHON_TEXT_H
#define CORE_PYTHON_TEXT_H

#include "base/json.h"
#include "base/text.h"
#include <stddef.h>

/* json.dumps(value, ensure_ascii=False): {"a": [1, 2.0], "b": null} */
void python_json(const struct json *json, const struct json_node *value, struct text *out);

/* The same for a string that is no JSON node; well-formed UTF-8, may hold NUL. */
void python_json_string(const char *bytes, size_t length, struct text *out);

/* str(value): the bare string; True, None, 1e-07; ['a', None] */
void python_str(const struct json *json, const struct json_node *value, struct text *out);

/* str.strip(): moves both ends inwards over white space. The bytes are well-formed UTF-8. */
void python_strip(const char **bytes, size_t *length);

/* repr(float) */
void python_float(double value, struct text *out);

#endif
