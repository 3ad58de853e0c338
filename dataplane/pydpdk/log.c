/* DPDK's log as a FILE that keeps its last bytes in memory, so that a program stays quiet and an error can still show
 * DPDK's own reason. Writers are serialised by the lock of the FILE, readers take the same lock.
 */

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "dpdk.h"

#define LOG_SIZE 65536

static FILE *stream;
static char kept[LOG_SIZE];
static size_t written;

static ssize_t keep(void *cookie, const char *text, size_t length)
{
	(void)cookie;
	for (size_t i = 0; i < length; i++)
		kept[written++ % LOG_SIZE] = text[i];
	return length;
}

int pydpdk_log_keep(void)
{
	cookie_io_functions_t functions = { .write = keep };

	if (stream == NULL)
		stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -1;
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	return rte_openlog_stream(stream);
}

size_t pydpdk_log_read(char *out, size_t room)
{
	size_t length, first;

	if (stream == NULL)
		return 0;
	flockfile(stream);
	fflush(stream);
	length = written < LOG_SIZE ? written : LOG_SIZE;
	length = length < room ? length : room;
	first = written - length;
	for (size_t i = 0; i < length; i++)
		out[i] = kept[(first + i) % LOG_SIZE];
	funlockfile(stream);
	return length;
}
