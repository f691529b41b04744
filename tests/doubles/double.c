/* Settings, faults, counters, violations and time. */
#define _GNU_SOURCE
#include "double.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Order ---- */

static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;

void double_lock(void)
{
    pthread_mutex_lock(&the_lock);
}

void double_unlock(void)
{
    pthread_mutex_unlock(&the_lock);
}

void double_wait_change(void)
{
    pthread_cond_wait(&change, &the_lock);
}

void double_tell_change(void)
{
    pthread_cond_broadcast(&change);
}

/* ---- Time ---- */

int64_t double_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

void double_sleep_until(int64_t time)
{
    struct timespec until = {.tv_sec = time / 1000000000, .tv_nsec = time % 1000000000};
    if (time <= double_now()) {
        return;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

int64_t double_cost(uint64_t amount, uint64_t cost, uint64_t unit)
{
    /* Bytes times nanoseconds pass 64 bits at 18 GB. */
    return (int64_t)((double)amount * (double)cost / (double)unit);
}

static uint64_t random_state = 1;

uint64_t double_random(uint64_t most)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return most == 0 ? 0 : (random_state >> 33) % (most + 1);
}

/* ---- Settings and counters ---- */

#define AS_DEFAULT(name, value) value,
#define AS_NAME(name, value) #name,
#define AS_COUNTER_NAME(name) #name,

uint64_t double_settings[SETTINGS] = {DOUBLE_SETTINGS(AS_DEFAULT)};
uint64_t double_counters[COUNTERS];
static uint64_t settings_when_loaded[SETTINGS];
static const char *const setting_names[SETTINGS] = {DOUBLE_SETTINGS(AS_NAME)};
static const char *const counter_names[COUNTERS] = {DOUBLE_COUNTERS(AS_COUNTER_NAME)};

static int find_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

int double_set(const char *name, uint64_t value)
{
    int setting = find_name(setting_names, SETTINGS, name);
    if (setting < 0 || (setting == SETTING_device_count && value > DOUBLE_DEVICES)) {
        return -1;
    }
    double_lock();
    double_settings[setting] = value;
    if (setting == SETTING_seed) {
        random_state = value;
    }
    if (setting == SETTING_device_count && double_is_initialised()) {
        double_choose_devices();
    }
    double_unlock();
    return 0;
}

uint64_t double_get(const char *name)
{
    int setting = find_name(setting_names, SETTINGS, name);
    int counter = find_name(counter_names, COUNTERS, name);
    uint64_t value = UINT64_MAX;
    double_lock();
    if (setting >= 0) {
        value = double_settings[setting];
    } else if (counter >= 0) {
        value = double_counters[counter];
    }
    double_unlock();
    return value;
}

/* A process of tests is given its settings before it can call anything. */
__attribute__((constructor)) static void read_environment(void)
{
    const char *given = getenv("PML_DOUBLE");
    char *settings = strdup(given != NULL ? given : "");
    char *rest = settings;
    for (char *setting; settings != NULL && (setting = strsep(&rest, ",")) != NULL;) {
        char *value = strchr(setting, '=');
        if (value != NULL) {
            *value++ = '\0';
        }
        if (*setting != '\0' && (value == NULL || double_set(setting, strtoull(value, NULL, 0)) != 0)) {
            fprintf(stderr, "double: PML_DOUBLE has no setting %s\n", setting);
            abort();
        }
    }
    free(settings);
    memcpy(settings_when_loaded, double_settings, sizeof double_settings);
}

/* ---- Calls and faults ---- */

/* One function of the driver, or "*". */
struct function {
    char *name;
    uint64_t calls;
    uint64_t fails_in; /* 0 = does not */
    int fails_with;
};

static struct function functions[128];
static size_t function_count;

/* Under the lock. */
static struct function *find_function(const char *name)
{
    for (size_t i = 0; i < function_count; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    if (function_count == sizeof functions / sizeof *functions) {
        abort();
    }
    struct function *function = &functions[function_count++];
    function->name = strdup(name);
    return function;
}

/* Whether this library has such a function: a fault for a misspelt one would never come, and prove nothing. */
static bool is_exported(const char *name)
{
    Dl_info own;
    char versioned[128];
    if (strcmp(name, "*") == 0) {
        return true;
    }
    if (dladdr(functions, &own) == 0) {
        return false;
    }
    void *library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    if (library == NULL) {
        return false;
    }
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    bool exported = dlsym(library, name) != NULL || dlsym(library, versioned) != NULL;
    dlclose(library);
    return exported;
}

/* Counts a call; the error that it is to fail with. Under the lock. */
static int count_call(struct function *function)
{
    function->calls++;
    if (function->fails_in == 0) {
        return SUCCESS;
    }
    function->fails_in--;
    return function->fails_in == 0 ? function->fails_with : SUCCESS;
}

int double_enter(const char *name, enum usable usable)
{
    double_lock();
    int of_all = count_call(find_function("*"));
    int own = count_call(find_function(name));
    int code = own != SUCCESS ? own : of_all;
    if (SET(lose_device) != 0 && usable != ALWAYS) {
        code = ILLEGAL_ADDRESS;
    } else if (code == SUCCESS && usable == WHEN_INITIALISED && !double_is_initialised()) {
        code = NOT_INITIALIZED;
    }
    double_unlock();
    return code;
}

uint64_t double_calls(const char *function)
{
    if (!is_exported(function)) {
        return UINT64_MAX;
    }
    double_lock();
    uint64_t calls = find_function(function)->calls;
    double_unlock();
    return calls;
}

int double_fail(const char *name, uint64_t nth, int code)
{
    if (!is_exported(name)) {
        return -1;
    }
    double_lock();
    struct function *function = find_function(name);
    function->fails_in = nth;
    function->fails_with = code;
    double_unlock();
    return 0;
}

void double_reset(void)
{
    double_lock();
    memcpy(double_settings, settings_when_loaded, sizeof double_settings);
    random_state = SET(seed);
    for (size_t i = 0; i < function_count; i++) {
        functions[i].calls = 0;
        functions[i].fails_in = 0;
    }
    if (double_is_initialised()) {
        double_choose_devices();
    }
    double_unlock();
}

/* ---- Violations ---- */

static char last_violation[256];

void double_violation(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_violation, sizeof last_violation, format, arguments);
    va_end(arguments);
    COUNTER(violations)++;
    fprintf(stderr, "double: violation: %s\n", last_violation);
    if (SET(abort) != 0) {
        abort();
    }
}

const char *double_last_violation(void)
{
    static __thread char copy[sizeof last_violation];
    double_lock();
    memcpy(copy, last_violation, sizeof copy);
    double_unlock();
    return copy;
}

/* ---- The hash ---- */

uint64_t double_hash(const void *memory, size_t bytes)
{
    const uint64_t prime = UINT64_C(0x100000001b3);
    const unsigned char *at = memory;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; bytes >= 8; at += 8, bytes -= 8) {
        uint64_t word;
        __builtin_memcpy(&word, at, 8);
        hash = (hash ^ word) * prime;
    }
    for (; bytes > 0; at++, bytes--) {
        hash = (hash ^ *at) * prime;
    }
    return hash;
}
