/*
 * What of a track's conversation has become events: so that only new messages do, and a turn knows
 * which one it follows. Belongs to core/track.c; worker only.
 */
#ifndef CORE_SAID_H
#define CORE_SAID_H

#include "core/track.h"

/* Where the accepted turn stands among those before: how many messages of its path were said
 * already (returned), and which turn it follows (*parent, -1 = none). */
size_t said_place(struct track *track, int *parent);

/* The messages from `known` on as events, the system text before them if it is another. Leaves room
 * for the answer. */
int said_messages(struct track *track, const struct conversation *conversation, size_t known,
				  struct error *err);

#endif
