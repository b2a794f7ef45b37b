/*
 * Blocks form a list; each reader stands in one of them. A record counts the readers that have not
 * passed it: at zero it gives back the model it may hold, and a block whose records have all been
 * passed is freed unless it is the one being filled. What a reader was handed is passed at its next
 * call, so it stays valid until then. One mutex; nobody waits inside it but for memory.
 */
#include "core/journal.h"
#include "base/memory.h"
#include "core/model.h"
#include <errno.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BLOCK_BYTES (64u << 10)

struct record {
	size_t bytes; // of the whole record, to the next one
	int readers;  // that have not passed it
	struct event event;
};

struct block {
	struct block *next;
	size_t used, capacity;
	size_t left; // records that somebody has not passed
	alignas(16) unsigned char data[];
};

struct reader {
	struct block *block; // NULL = nothing was appended since it was added or all was passed
	size_t offset;       // of the next record, or of the one handed out
	bool handed;
	size_t waiting; // records behind the one handed out
	int fd;
};

struct journal {
	pthread_mutex_t mutex;
	struct block *first, *last;
	struct block *spare; // so that the sentence about missing memory, and the stop, find a place
	struct reader readers[JOURNAL_MAX_READERS];
	int n_readers;
};

static struct model *model_of(const struct event *event)
{
	bool has = event->type == EV_OPENED || event->type == EV_CLEARED;
	return has ? event->opened.model : NULL;
}

static struct record *record_at(struct block *block, size_t offset)
{
	return (struct record *)(void *)(block->data + offset);
}

static size_t round_up(size_t bytes)
{
	return (bytes + 15) & ~(size_t)15;
}

/* Frees the blocks in front that everybody has passed. */
static void free_passed(struct journal *journal)
{
	while (journal->first != journal->last && journal->first->left == 0) {
		struct block *block = journal->first;
		journal->first = block->next;
		for (int i = 0; i < journal->n_readers; i++)
			if (journal->readers[i].block == block) { // at its end, nothing handed out
				journal->readers[i].block = journal->first;
				journal->readers[i].offset = 0;
			}
		if (!journal->spare && block->capacity == BLOCK_BYTES)
			journal->spare = block;
		else
			free(block);
	}
}

/* For at least so many bytes; the spare one when there is no memory for another. */
static struct block *new_block(struct journal *journal, size_t bytes, struct error *err)
{
	size_t capacity = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
	struct block *block = mem_new_aligned(sizeof *block + capacity, 1, err);
	if (!block && capacity == BLOCK_BYTES) {
		block = journal->spare;
		journal->spare = NULL;
	}
	if (block)
		*block = (struct block){.capacity = capacity};
	return block;
}

/* A place for `bytes` at the end of the last block, or of a new one. */
static struct record *reserve(struct journal *journal, size_t bytes, struct error *err)
{
	struct block *last = journal->last;
	if (!last || last->capacity - last->used < bytes) {
		struct block *block = new_block(journal, bytes, err);
		if (!block)
			return NULL;
		if (last)
			last->next = block;
		else
			journal->first = block;
		journal->last = block;
		for (int i = 0; i < journal->n_readers; i++)
			if (!journal->readers[i].block)
				journal->readers[i].block = block;
		free_passed(journal);
	}
	return record_at(journal->last, journal->last->used);
}

static int append_locked(struct journal *journal, const struct event *event, struct error *err)
{
	size_t numbers_at = round_up(sizeof(struct record)), numbers_bytes, text_at, bytes;
	if (!mem_multiply(event->n_numbers, sizeof *event->numbers, &numbers_bytes) ||
		numbers_bytes > SIZE_MAX / 4 || event->length > SIZE_MAX / 4)
		return fail(err, "an event of %zu numbers and %zu bytes is too large", event->n_numbers,
					event->length);
	text_at = numbers_at + numbers_bytes;
	bytes = round_up(text_at + (event->text ? event->length + 1 : 0));
	struct record *record = reserve(journal, bytes, err);
	if (!record)
		return -1;
	char *base = (char *)record;
	record->bytes = bytes;
	record->readers = journal->n_readers;
	record->event = *event;
	record->event.numbers = NULL;
	record->event.text = NULL;
	if (event->n_numbers) {
		memcpy(base + numbers_at, event->numbers, numbers_bytes);
		record->event.numbers = (const int32_t *)(const void *)(base + numbers_at);
	}
	if (event->text) {
		memcpy(base + text_at, event->text, event->length);
		base[text_at + event->length] = 0;
		record->event.text = base + text_at;
	}
	if (model_of(event))
		model_retain(model_of(event));
	journal->last->used += bytes;
	journal->last->left++;
	return 0;
}

static void wake(struct reader *reader)
{
	uint64_t one = 1;
	ssize_t written = write(reader->fd, &one, sizeof one);
	(void)written; // the counter can't overflow: it is written only when it is 0
}

static void still(struct reader *reader)
{
	uint64_t count;
	ssize_t got = read(reader->fd, &count, sizeof count);
	(void)got;
}

/* The reader leaves the record it was handed. Returns the model to be released, or NULL. */
static struct model *pass(struct journal *journal, struct reader *reader)
{
	struct model *model = NULL;
	struct record *record = record_at(reader->block, reader->offset);
	reader->offset += record->bytes;
	reader->handed = false;
	if (--record->readers == 0) {
		model = model_of(&record->event);
		reader->block->left--;
		free_passed(journal);
	}
	return model;
}

struct journal *journal_open(struct error *err)
{
	struct journal *journal = mem_new(1, sizeof *journal, err);
	if (!journal)
		return NULL;
	pthread_mutex_init(&journal->mutex, NULL);
	journal->spare = new_block(journal, BLOCK_BYTES, err);
	if (!journal->spare) {
		journal_close(journal);
		return NULL;
	}
	return journal;
}

void journal_close(struct journal *journal)
{
	if (!journal)
		return;
	for (struct block *block = journal->first, *next; block; block = next) {
		next = block->next;
		for (size_t at = 0; at < block->used; at += record_at(block, at)->bytes) {
			struct record *record = record_at(block, at);
			if (record->readers > 0)
				model_release(model_of(&record->event));
		}
		free(block);
	}
	free(journal->spare);
	for (int i = 0; i < journal->n_readers; i++)
		close(journal->readers[i].fd);
	pthread_mutex_destroy(&journal->mutex);
	free(journal);
}

int journal_append(struct journal *journal, const struct event *event, struct error *err)
{
	int failed = 0;
	pthread_mutex_lock(&journal->mutex);
	if (journal->n_readers > 0) // else nobody will ever see it
		failed = append_locked(journal, event, err);
	if (!failed)
		for (int i = 0; i < journal->n_readers; i++)
			if (journal->readers[i].waiting++ == 0)
				wake(&journal->readers[i]);
	pthread_mutex_unlock(&journal->mutex);
	return failed;
}

int journal_add_reader(struct journal *journal, struct error *err)
{
	int number = -1;
	pthread_mutex_lock(&journal->mutex);
	if (journal->n_readers == JOURNAL_MAX_READERS) {
		fail(err, "the journal has %d readers already", JOURNAL_MAX_READERS);
	} else {
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (fd < 0) {
			fail(err, "can't make an event descriptor: %s", strerror(errno));
		} else {
			number = journal->n_readers++;
			journal->readers[number] = (struct reader){
				.block = journal->last,
				.offset = journal->last ? journal->last->used : 0,
				.fd = fd,
			};
		}
	}
	pthread_mutex_unlock(&journal->mutex);
	return number;
}

int journal_fd(const struct journal *journal, int reader)
{
	return journal->readers[reader].fd;
}

const struct event *journal_next(struct journal *journal, int number)
{
	struct reader *reader = &journal->readers[number];
	const struct event *event = NULL;
	struct model *model = NULL;
	pthread_mutex_lock(&journal->mutex);
	if (reader->handed)
		model = pass(journal, reader);
	while (reader->block && reader->offset == reader->block->used && reader->block->next) {
		reader->block = reader->block->next;
		reader->offset = 0;
	}
	if (reader->waiting > 0) {
		event = &record_at(reader->block, reader->offset)->event;
		reader->handed = true;
		if (--reader->waiting == 0)
			still(reader);
	}
	pthread_mutex_unlock(&journal->mutex);
	model_release(model);
	return event;
}
