/*
 * The engine's events in order, for several readers in other threads. Records have variable length
 * and lie in 64 KiB blocks, which are freed once every reader has passed. Nothing is dropped: a
 * late reader catches up. Each reader has an eventfd that is readable while something is waiting.
 */
#ifndef CORE_JOURNAL_H
#define CORE_JOURNAL_H

#include "base/error.h"
#include "core/event.h"

#define JOURNAL_MAX_READERS 8

struct journal;

struct journal *journal_open(struct error *err);
void journal_close(struct journal *journal); // takes NULL; no reader may be inside

/* Copies the event, text and numbers included. Any thread. -1 when there is no memory. */
int journal_append(struct journal *journal, const struct event *event, struct error *err);

/* A reader sees everything appended after it was added. Its number, or -1. */
int journal_add_reader(struct journal *journal, struct error *err);
int journal_fd(const struct journal *journal, int reader);

/* The next event, valid until the same reader's next call; NULL = nothing waiting (and fd not
 * readable). */
const struct event *journal_next(struct journal *journal, int reader);

#endif
