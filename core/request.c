#include "core/request.h"
#include "base/clock.h"
#include "base/memory.h"
#include "core/model.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int copy_string(const char **field, struct error *err)
{
	if (!*field)
		return 0;
	*field = mem_string(*field, strlen(*field), err);
	return *field ? 0 : -1;
}

static int copy_tokens(struct request *request, struct error *err)
{
	int32_t *tokens = mem_new((size_t)request->n_tokens, sizeof *tokens, err);
	if (tokens)
		memcpy(tokens, request->tokens, (size_t)request->n_tokens * sizeof *tokens);
	request->tokens = tokens;
	return tokens ? 0 : -1;
}

struct request_copy *request_copy(const struct request *request, struct error *err)
{
	struct request_copy *copy = mem_new(1, sizeof *copy, err);
	if (!copy)
		return NULL;
	struct request *to = &copy->request;
	*to = *request;
	copy->submitted_ns = clock_ns();
	int failed = 0;
	if (request->conversation) {
		failed = conversation_copy_path(request->conversation, request->conversation->active,
										&copy->conversation, err);
		to->conversation = &copy->conversation;
	}
	// each field is replaced by its copy or NULL, so that request_free() never frees a borrowed one
	failed |= copy_string(&to->directory, err);
	failed |= copy_string(&to->budgets_file, err);
	failed |= copy_string(&to->text, err);
	if (request->model)
		model_retain(request->model);
	if (request->tokens)
		failed |= copy_tokens(to, err);
	if (failed) {
		request_free(copy);
		return NULL;
	}
	return copy;
}

void request_free(struct request_copy *copy)
{
	if (!copy)
		return;
	conversation_free(&copy->conversation);
	model_release(copy->request.model);
	free((char *)copy->request.directory);
	free((char *)copy->request.budgets_file);
	free((char *)copy->request.text);
	free((int32_t *)copy->request.tokens);
	free(copy);
}

void queue_init(struct request_queue *queue)
{
	pthread_condattr_t monotonic;
	*queue = (struct request_queue){0};
	pthread_mutex_init(&queue->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&queue->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

void queue_finish(struct request_queue *queue)
{
	for (struct request_copy *copy = queue->first, *next; copy; copy = next) {
		next = copy->next;
		request_free(copy);
	}
	pthread_cond_destroy(&queue->changed);
	pthread_mutex_destroy(&queue->mutex);
}

void queue_put(struct request_queue *queue, struct request_copy *copy)
{
	pthread_mutex_lock(&queue->mutex);
	copy->next = NULL;
	if (queue->last)
		queue->last->next = copy;
	else
		queue->first = copy;
	queue->last = copy;
	queue->fresh = true;
	pthread_cond_signal(&queue->changed);
	pthread_mutex_unlock(&queue->mutex);
}

void queue_end(struct request_queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	queue->closing = true;
	pthread_cond_signal(&queue->changed);
	pthread_mutex_unlock(&queue->mutex);
}

struct request_copy *queue_take(struct request_queue *queue,
								bool (*may)(void *user, const struct request *request), void *user)
{
	struct request_copy *taken = NULL, *before = NULL;
	pthread_mutex_lock(&queue->mutex);
	for (struct request_copy *at = queue->first; at && !taken; at = at->next)
		if (!may || may(user, &at->request))
			taken = at;
		else
			before = at;
	if (taken) {
		if (before)
			before->next = taken->next;
		else
			queue->first = taken->next;
		if (queue->last == taken)
			queue->last = before;
	} else {
		queue->fresh = false;
	}
	pthread_mutex_unlock(&queue->mutex);
	return taken;
}

void queue_wait(struct request_queue *queue, uint64_t deadline_ns)
{
	struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000),
							 .tv_nsec = (long)(deadline_ns % 1000000000)};
	int timed_out = 0;
	pthread_mutex_lock(&queue->mutex);
	while (!queue->fresh && !queue->closing && !timed_out)
		timed_out = deadline_ns ? pthread_cond_timedwait(&queue->changed, &queue->mutex, &until)
								: pthread_cond_wait(&queue->changed, &queue->mutex);
	pthread_mutex_unlock(&queue->mutex);
}

bool queue_closing(struct request_queue *queue)
{
	pthread_mutex_lock(&queue->mutex);
	bool closing = queue->closing;
	pthread_mutex_unlock(&queue->mutex);
	return closing;
}
