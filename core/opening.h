/*
 * Inside the worker: a model is opened, or the open one moved to another device. Everything that
 * the new one needs (weights on the device, state for the context) is made before the old one goes,
 * so that what fails leaves all as it was. Progress and the end are events.
 */
#ifndef CORE_OPENING_H
#define CORE_OPENING_H

#include "core/worker.h"

void opening_model(struct worker *worker, const struct request *request); // REQUEST_OPEN
void opening_move(struct worker *worker, const struct request *request);  // REQUEST_DEVICE

/* Whether the user has stopped an upload since this was last asked: one that failed, or one that
 * was done before the stop was seen. Who uploads asks afterwards, so that it stops nothing else. */
bool opening_stopped(struct worker *worker);

/* EV_OPENED, or EV_CLEARED where the same model begins a conversation. */
void opening_say(struct worker *worker, enum event_type type);

#endif
