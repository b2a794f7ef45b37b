#include "tui/transcript.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

static void entry_free(struct entry *entry)
{
	text_free(&entry->text);
	free(entry->tokens);
	*entry = (struct entry){0};
}

static void cut(struct transcript *transcript, size_t n)
{
	while (transcript->n_entries > n)
		entry_free(&transcript->entries[--transcript->n_entries]);
	transcript->version++;
}

void transcript_free(struct transcript *transcript)
{
	cut(transcript, 0);
	free(transcript->entries);
	*transcript = (struct transcript){0};
}

void transcript_clear(struct transcript *transcript)
{
	cut(transcript, 0);
}

struct entry *transcript_add(struct transcript *transcript, enum entry_kind kind, const char *text,
							 size_t length)
{
	if (mem_grow(&transcript->entries, &transcript->capacity, transcript->n_entries + 1,
				 sizeof *transcript->entries, NULL))
		return NULL;
	struct entry *entry = &transcript->entries[transcript->n_entries++];
	*entry = (struct entry){.kind = kind, .version = ++transcript->version};
	text_append(&entry->text, text, length);
	return entry;
}

static int copy_entry(struct transcript *to, const struct entry *from)
{
	struct entry *entry =
		transcript_add(to, from->kind, text_chars(&from->text), from->text.length);
	if (!entry || mem_grow(&entry->tokens, &entry->tokens_capacity, from->n_tokens + 1,
						   sizeof *entry->tokens, NULL))
		return -1;
	if (from->n_tokens > 0)
		memcpy(entry->tokens, from->tokens, from->n_tokens * sizeof *entry->tokens);
	entry->n_tokens = from->n_tokens;
	entry->steps = from->steps;
	entry->took_ns = from->took_ns;
	entry->live = from->live;
	entry->folded = from->folded;
	return 0;
}

int transcript_copy(struct transcript *to, const struct transcript *from)
{
	*to = (struct transcript){.version = from->version + 1}; // no reader takes it for the old one
	for (size_t i = 0; i < from->n_entries; i++)
		if (copy_entry(to, &from->entries[i])) {
			transcript_free(to);
			return -1;
		}
	return 0;
}

/* The entry that is being written, of this kind. */
static struct entry *live_entry(struct transcript *transcript, enum entry_kind kind)
{
	if (transcript->n_entries > 0) {
		struct entry *last = &transcript->entries[transcript->n_entries - 1];
		if (last->live && last->kind == kind)
			return last;
		transcript_stop(transcript);
	}
	struct entry *entry = transcript_add(transcript, kind, "", 0);
	if (entry)
		entry->live = true;
	return entry;
}

void transcript_token(struct transcript *transcript, const struct event *event,
					  const struct reply *reply, int budget)
{
	bool think = event->token.phase == PHASE_THINK;
	struct entry *entry = live_entry(transcript, think ? ENTRY_THOUGHT : ENTRY_ANSWER);
	if (!entry || mem_grow(&entry->tokens, &entry->tokens_capacity, entry->n_tokens + 1,
						   sizeof *entry->tokens, NULL))
		return;
	const struct text *text = think ? &reply->reasoning : &reply->answer;
	struct entry_token *token = &entry->tokens[entry->n_tokens];
	*token = (struct entry_token){(uint32_t)entry->text.length, (int8_t)budget, false};
	token->switched = entry->n_tokens > 0 && token[-1].budget != token->budget;
	entry->n_tokens++;
	if (text->length >= entry->text.length) { // the reply keeps back what may be trimmed
		text_append(&entry->text, text_chars(text) + entry->text.length,
					text->length - entry->text.length);
	} else {
		text_clear(&entry->text);
		text_append(&entry->text, text_chars(text), text->length);
	}
	if (event->token.took_ns > 0) {
		entry->steps++;
		entry->took_ns += event->token.took_ns;
	}
	entry->version = ++transcript->version;
}

void transcript_stop(struct transcript *transcript)
{
	for (size_t i = transcript->n_entries; i-- > 0 && transcript->entries[i].live;) {
		struct entry *entry = &transcript->entries[i];
		entry->live = false;
		entry->folded = entry->kind == ENTRY_THOUGHT;
		entry->version = ++transcript->version;
	}
}

void transcript_undo(struct transcript *transcript, bool keep_user)
{
	size_t i = transcript->n_entries;
	while (i > 0 && transcript->entries[i - 1].kind != ENTRY_USER)
		i--;
	if (i > 0)
		cut(transcript, keep_user ? i : i - 1);
}
