/*
 * Requests on their way to a worker: a copy that owns its texts, and a queue that one thread fills
 * and another empties, waiting for it if it likes.
 */
#ifndef CORE_REQUEST_H
#define CORE_REQUEST_H

#include "core/engine.h"
#include <pthread.h>

/* A request that owns what it points at. */
struct request_copy {
	struct request request; // its pointers point into this copy
	struct conversation conversation;
	struct request_copy *next;
	uint64_t submitted_ns; // clock_ns()
};

struct request_copy *request_copy(const struct request *request, struct error *err);
void request_free(struct request_copy *copy); // takes NULL

struct request_queue {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct request_copy *first, *last;
	bool fresh; // something was put since queue_take() found nothing
	bool closing;
};

void queue_init(struct request_queue *queue);
void queue_finish(struct request_queue *queue); // frees what was not taken

void queue_put(struct request_queue *queue, struct request_copy *copy);
void queue_end(
	struct request_queue *queue); // from now on queue_closing() is true, and nobody waits

/* The oldest request that `may` lets through (NULL: any), taken out; NULL = none. may is called
 * oldest first and must not touch the queue. */
struct request_copy *queue_take(struct request_queue *queue,
								bool (*may)(void *user, const struct request *request), void *user);

/* Waits until something is put or the queue ends, or until deadline_ns (clock_ns(); 0 = for ever),
 * unless something the last queue_take did not see is there already. */
void queue_wait(struct request_queue *queue, uint64_t deadline_ns);
bool queue_closing(struct request_queue *queue);

#endif
