/* Stream capture: what it takes instead of the stream, and which calls it forbids. Nothing is kept of what was
 * captured; a graph is only a handle. */
#define _GNU_SOURCE
#include "double.h"

#include <stdlib.h>

struct capture {
    uint64_t id;
    enum capture_mode mode;
    pthread_t thread; /* that began it */
    struct stream *origin;
    bool is_spoilt;
    struct capture *next;
};

static struct capture *captures;
static uint64_t last_id;
static __thread enum capture_mode own_mode = MODE_GLOBAL;

/* Whether a capture forbids this thread what might disturb it, as cuThreadExchangeStreamCaptureMode tells. */
static bool forbids(const struct capture *capture)
{
    bool is_own = pthread_equal(capture->thread, pthread_self()) != 0;
    switch (own_mode) {
    case MODE_GLOBAL:
        return is_own ? capture->mode != MODE_RELAXED : capture->mode == MODE_GLOBAL;
    case MODE_THREAD_LOCAL:
        return is_own && capture->mode != MODE_RELAXED;
    case MODE_RELAXED:
        return false;
    }
    abort();
}

int double_capture_allows(void)
{
    int code = SUCCESS;
    double_lock();
    for (struct capture *capture = captures; capture != NULL; capture = capture->next) {
        if (forbids(capture)) {
            capture->is_spoilt = true;
            code = CAPTURE_UNSUPPORTED;
        }
    }
    double_unlock();
    return code;
}

/* The legacy stream would wait for a stream that captures, and so become part of the capture. */
static bool would_join_implicitly(const struct stream *legacy)
{
    bool joins = false;
    for (struct stream *other = double_streams; other != NULL; other = other->next) {
        if (other->capture != NULL && other->device == legacy->device && !other->is_non_blocking) {
            double_capture_spoil(other);
            joins = true;
        }
    }
    return joins;
}

int double_capture_takes(struct stream *stream, bool *is_captured)
{
    *is_captured = stream->capture != NULL;
    if (*is_captured) {
        return stream->capture->is_spoilt ? CAPTURE_INVALIDATED : SUCCESS;
    }
    return stream->is_legacy && would_join_implicitly(stream) ? CAPTURE_IMPLICIT : SUCCESS;
}

void double_capture_spoil(struct stream *stream)
{
    if (stream->capture != NULL) {
        stream->capture->is_spoilt = true;
    }
}

uint64_t double_capture_id(const struct stream *stream)
{
    return stream->capture != NULL ? stream->capture->id : 0;
}

bool double_capture_join(struct stream *stream, uint64_t id)
{
    for (struct capture *capture = captures; capture != NULL; capture = capture->next) {
        if (capture->id == id) {
            stream->capture = capture;
            return true;
        }
    }
    return false;
}

/* Under the lock. */
static int begin(struct stream *stream, enum capture_mode mode)
{
    if (stream->is_legacy) {
        return CAPTURE_UNSUPPORTED;
    }
    if (stream->capture != NULL) {
        return ILLEGAL_STATE;
    }
    struct capture *capture = calloc(1, sizeof *capture);
    if (capture == NULL) {
        return OUT_OF_MEMORY;
    }
    *capture = (struct capture){
        .id = ++last_id, .mode = mode, .thread = pthread_self(), .origin = stream, .next = captures};
    captures = capture;
    stream->capture = capture;
    return SUCCESS;
}

int double_capture_begin(struct device *current, void *handle, int mode)
{
    int code;
    if (mode < MODE_GLOBAL || mode > MODE_RELAXED) {
        return INVALID_VALUE;
    }
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL) {
        code = begin(stream, (enum capture_mode)mode);
    }
    double_unlock();
    return code;
}

static void release(struct capture *capture)
{
    struct capture **link = &captures;
    for (struct stream *stream = double_streams; stream != NULL; stream = stream->next) {
        if (stream->capture == capture) {
            stream->capture = NULL;
        }
    }
    while (*link != capture) {
        link = &(*link)->next;
    }
    *link = capture->next;
    free(capture);
}

/* Under the lock. */
static int end(struct stream *stream, void **graph)
{
    struct capture *capture = stream->capture;
    if (capture == NULL) {
        return ILLEGAL_STATE;
    }
    if (capture->origin != stream) {
        return CAPTURE_UNMATCHED;
    }
    if (capture->mode != MODE_RELAXED && !pthread_equal(capture->thread, pthread_self())) {
        return CAPTURE_WRONG_THREAD;
    }
    int code = capture->is_spoilt ? CAPTURE_INVALIDATED : SUCCESS;
    release(capture);
    *graph = code == SUCCESS ? double_handle_new(HANDLE_GRAPH, &captures) : NULL;
    return code;
}

int double_capture_end(struct device *current, void *handle, void **graph)
{
    int code;
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL) {
        code = end(stream, graph);
    }
    double_unlock();
    return code;
}

int double_capture_status(struct device *current, void *handle, int *status)
{
    enum { NONE, ACTIVE, INVALIDATED };
    int code;
    double_lock();
    struct stream *stream = double_stream_find(current, handle, &code);
    if (stream != NULL) {
        *status = stream->capture == NULL ? NONE : stream->capture->is_spoilt ? INVALIDATED : ACTIVE;
    }
    if (code == SUCCESS && stream->is_legacy && would_join_implicitly(stream)) {
        code = CAPTURE_IMPLICIT;
    }
    double_unlock();
    return code;
}

int double_capture_exchange(int *mode)
{
    int before = (int)own_mode;
    if (*mode < MODE_GLOBAL || *mode > MODE_RELAXED) {
        return INVALID_VALUE;
    }
    own_mode = (enum capture_mode)*mode;
    *mode = before;
    return SUCCESS;
}

int double_graph_destroy(void *graph)
{
    double_lock();
    bool is_there = double_handle_find(HANDLE_GRAPH, graph) != NULL;
    if (is_there) {
        double_handle_end(graph);
    }
    double_unlock();
    return is_there ? SUCCESS : INVALID_VALUE;
}
