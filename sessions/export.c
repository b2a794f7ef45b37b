#include "sessions/export.h"
#include "sessions/event_json.h"
#include "sessions/reply_json.h"
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

static const struct turn_settings *settings_of(const struct session *session,
											   const struct session_turn *turn)
{
	return &session->events[turn->first].turn.settings;
}

static void quoted(struct text *out, const struct text *text)
{
	text_add(out, "> ");
	for (size_t i = 0; i < text->length; i++) {
		text_add_char(out, text->data[i]);
		if (text->data[i] == '\n')
			text_add(out, "> ");
	}
	text_add(out, "\n\n");
}

static void markdown_costs(const struct reply *reply, struct text *out)
{
	for (size_t i = 0; i < reply->n_segments; i++) {
		const struct segment *s = &reply->segments[i];
		text_format(out, "%s%s %s %d tokens", i ? ", " : "*", phase_name(s->phase), s->budget,
					s->tokens);
		if (s->took_ns > 0)
			text_format(out, " %.1f tok/s", s->steps * 1e9 / (double)s->took_ns);
	}
	if (reply->n_segments)
		text_add(out, "*\n");
	for (size_t i = 0; i < reply->n_switches; i++) {
		const struct reply_switch *c = &reply->switches[i];
		text_format(out, "*switch at position %d: %s -> %s (%s, %s, %.1f ms", c->at, c->from, c->to,
					handoff_name(c->handoff), switch_reason_name(c->reason),
					(double)c->took_ns / 1e6);
		if (c->n_stale)
			text_format(out, ", %zu layers stale", c->n_stale);
		text_add(out, ")*\n");
	}
	if (reply->n_segments)
		text_add_char(out, '\n');
}

static void markdown_turn(const struct session *session, const struct session_turn *turn,
						  struct text *out)
{
	const struct turn_settings *settings = settings_of(session, turn);
	const struct reply *reply = &turn->reply;
	text_format(out, "## Assistant (seed %llu, temperature %g, %s)\n\n",
				(unsigned long long)settings->sampling.seed, (double)settings->sampling.temperature,
				session->events[turn->first].turn.rung);
	if (reply->reasoning.length)
		quoted(out, &reply->reasoning);
	text_append(out, text_chars(&reply->answer), reply->answer.length);
	text_add(out, reply->answer.length ? "\n\n" : "");
	if (turn->over && reply->n_segments &&
		reply->segments[reply->n_segments - 1].phase == PHASE_THINK)
		text_add(out, "*it stopped inside its thoughts: no answer*\n\n");
	if (reply->failed)
		text_format(out, "**error: %s**\n\n", reply->error);
	if (!turn->over)
		text_add(out, "**the log ends here**\n\n");
	markdown_costs(reply, out);
}

static void markdown_head(const struct session *session, struct text *out)
{
	const struct session_origin *origin = session_last_origin(session);
	text_format(out, "# Session%s%s\n\n", origin ? " of " : "", origin ? origin->time : "");
	if (!origin)
		return;
	text_format(out, "%s, hash %s, recorded by elastiscope %s, budgets", origin->checkpoint,
				origin->hash, origin->version);
	for (int i = 0; i < origin->n_budgets; i++)
		text_format(out, "%s %s", i ? "," : "", origin->budgets[i]);
	text_add(out, "\n\n");
}

void session_markdown(const struct session *session, struct text *out)
{
	const struct conversation *conversation = &session->conversation;
	struct text damage = {0};
	int *path = NULL, n = conversation_path(conversation, conversation->active, &path, NULL);
	markdown_head(session, out);
	session_damage(session, &damage);
	if (damage.length)
		text_format(out, "**%s**\n\n", text_chars(&damage));
	text_free(&damage);
	if (conversation->system)
		text_format(out, "## System\n\n%s\n\n", conversation->system);
	for (int i = 0; i < n; i++) {
		const struct message *message = &conversation->messages[path[i]];
		const struct session_turn *turn = session_turn_of(session, path[i]);
		if (turn) {
			markdown_turn(session, turn, out);
			continue;
		}
		text_format(out, "## %s\n\n", message->role == CHAT_USER ? "User" : "Assistant");
		text_append(out, message->text, message->text_length);
		text_add(out, "\n\n");
	}
	const struct session_turn *last =
		session->n_turns ? &session->turns[session->n_turns - 1] : NULL;
	if (last && last->answer == NO_MESSAGE && last->user == conversation->active)
		markdown_turn(session, last, out); // nothing was said in it
	free(n < 0 ? NULL : path);
}

static void add_messages(cJSON *root, const struct session *session)
{
	const struct conversation *conversation = &session->conversation;
	cJSON *list = cJSON_AddArrayToObject(root, "messages");
	int *path = NULL, n = conversation_path(conversation, conversation->active, &path, NULL);
	if (conversation->system) {
		cJSON *to = cJSON_CreateObject();
		cJSON_AddStringToObject(to, "role", "system");
		cJSON_AddStringToObject(to, "content", conversation->system);
		cJSON_AddItemToArray(list, to);
	}
	for (int i = 0; i < n; i++) {
		const struct message *message = &conversation->messages[path[i]];
		cJSON *to = cJSON_CreateObject();
		cJSON_AddStringToObject(to, "role", chat_role_name(message->role));
		cJSON_AddStringToObject(to, "content", message->text);
		if (message->reasoning_length)
			cJSON_AddStringToObject(to, "reasoning_content", message->reasoning);
		cJSON_AddItemToArray(list, to);
	}
	free(n < 0 ? NULL : path);
}

/* The settings as the log has them, then the reply. */
static void add_turn(cJSON *list, const struct session *session, const struct session_turn *turn)
{
	struct text line = {0};
	cJSON *to = NULL;
	if (event_json(&session->events[turn->first], &line, NULL) == 0)
		to = cJSON_ParseWithLength(line.data, line.length);
	cJSON *reply = reply_json(&turn->reply);
	cJSON_DeleteItemFromObject(to, "ev");
	cJSON_DeleteItemFromObject(to, "seq");
	text_clear(&line);
	text_format(&line, "%llu", (unsigned long long)settings_of(session, turn)->sampling.seed);
	cJSON_ReplaceItemInObject(to, "seed", cJSON_CreateRaw(text_chars(&line))); // all digits of it
	text_free(&line);
	for (cJSON *item; reply && (item = reply->child);) {
		cJSON_DetachItemViaPointer(reply, item);
		char *key = item->string;
		item->string = NULL;
		cJSON_AddItemToObject(to, key, item);
		cJSON_free(key);
	}
	cJSON_Delete(reply);
	cJSON_AddBoolToObject(to, "complete", turn->over);
	cJSON_AddItemToArray(list, to);
}

cJSON *session_json(const struct session *session)
{
	cJSON *root = cJSON_CreateObject();
	const struct session_origin *origin = session_last_origin(session);
	struct text damage = {0};
	cJSON_AddStringToObject(root, "path", session->path);
	cJSON_AddStringToObject(root, "version", origin ? origin->version : "");
	cJSON_AddStringToObject(root, "checkpoint", origin ? origin->checkpoint : "");
	cJSON_AddStringToObject(root, "hash", origin ? origin->hash : "");
	cJSON_AddStringToObject(root, "time", origin ? origin->time : "");
	cJSON *budgets = cJSON_AddArrayToObject(root, "budgets");
	for (int i = 0; origin && i < origin->n_budgets; i++)
		cJSON_AddItemToArray(budgets, cJSON_CreateString(origin->budgets[i]));
	add_messages(root, session);
	cJSON *turns = cJSON_AddArrayToObject(root, "turns");
	for (size_t i = 0; i < session->n_turns; i++)
		add_turn(turns, session, &session->turns[i]);
	session_damage(session, &damage);
	cJSON_AddStringToObject(root, "damage", text_chars(&damage));
	text_free(&damage);
	return root;
}

static void csv_field(struct text *out, const char *bytes, size_t length)
{
	text_add_char(out, '"');
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] == '"')
			text_add_char(out, '"');
		text_add_char(out, bytes[i]);
	}
	text_add_char(out, '"');
}

void session_csv(const struct session *session, struct text *out)
{
	text_add(out, "turn,at,ms,id,text,logprob,budget,phase,took_ms,forced,given\n");
	for (size_t t = 0; t < session->n_turns; t++) {
		const struct session_turn *turn = &session->turns[t];
		for (size_t i = turn->first; i < turn->end; i++) {
			const struct event *event = &session->events[i];
			if (event->type != EV_TOKEN || event->seq != 0)
				continue;
			text_format(out, "%d,%d,%.6f,%d,", session->events[turn->first].turn.id,
						event->token.at, (double)event->at_ns / 1e6, event->token.id);
			csv_field(out, event->text, event->length);
			text_format(out, ",%.9g,", (double)event->token.logprob);
			csv_field(out, event->token.budget, strlen(event->token.budget));
			text_format(out, ",%s,%.6f,%d,%d\n", phase_name(event->token.phase),
						(double)event->token.took_ns / 1e6, event->token.forced,
						event->token.given);
		}
	}
}
