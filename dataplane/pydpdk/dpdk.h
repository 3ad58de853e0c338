/* The headers behind shim.c, log.c and the functions that cffi calls directly. */

#ifndef PYDPDK_DPDK_H
#define PYDPDK_DPDK_H

#include <stdint.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_memzone.h>
#include <rte_pause.h>
#include <rte_ring.h>
#include <rte_service_component.h>
#include <rte_version.h>

#include "shim.h"

#endif
