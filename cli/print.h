/*
 * What commands print to stdout beside plain text: JSON, fields of CSV, large numbers. Numbers that
 * nobody knows are null, never 0.
 */
#ifndef CLI_PRINT_H
#define CLI_PRINT_H

#include "base/error.h"
#include <stdint.h>

struct cJSON;

/* One value, indented or as one line; deletes it. NULL: there was no memory to build it. */
int print_tree(struct cJSON *root, struct error *err);
int print_line(struct cJSON *root, struct error *err);

/* A member of an object; null where the value is not finite. */
void print_add_number(struct cJSON *object, const char *key, double value);

void print_field(const char *field); // of CSV, quoted where it must be

/* A number of CSV with a comma before it; nothing behind the comma where it is not finite. */
void print_value(double value);

void print_escaped(const char *text); // control characters as \\n, \\t, \\x1b

const char *print_grouped(uint64_t value, char out[32]); // "2,347,656"

#endif
