/* See shim.h. One line a function: this file copies and calls, and decides nothing. */

#include <stdio.h>

#include "dpdk.h"

#define PKTS(address) ((struct rte_mbuf **)(uintptr_t)(address))
#define MBUF(address) ((struct rte_mbuf *)(uintptr_t)(address))
#define POOL(address) ((struct rte_mempool *)(uintptr_t)(address))
#define ADDRESS(pointer) ((int64_t)(uintptr_t)(pointer))

int64_t pydpdk_rx_burst(int64_t port, int64_t queue, int64_t pkts, int64_t n)
{
	return rte_eth_rx_burst(port, queue, PKTS(pkts), n);
}

int64_t pydpdk_tx_burst(int64_t port, int64_t queue, int64_t pkts, int64_t n)
{
	return rte_eth_tx_burst(port, queue, PKTS(pkts), n);
}

int64_t pydpdk_tx_prepare(int64_t port, int64_t queue, int64_t pkts, int64_t n)
{
	return rte_eth_tx_prepare(port, queue, PKTS(pkts), n);
}

int64_t pydpdk_tx_done_cleanup(int64_t port, int64_t queue, int64_t n)
{
	return rte_eth_tx_done_cleanup(port, queue, n);
}

int64_t pydpdk_rx_queue_count(int64_t port, int64_t queue)
{
	return rte_eth_rx_queue_count(port, queue);
}

int64_t pydpdk_rx_intr_enable(int64_t port, int64_t queue)
{
	return rte_eth_dev_rx_intr_enable(port, queue);
}

int64_t pydpdk_rx_intr_disable(int64_t port, int64_t queue)
{
	return rte_eth_dev_rx_intr_disable(port, queue);
}

int64_t pydpdk_alloc(int64_t pool)
{
	return ADDRESS(rte_pktmbuf_alloc(POOL(pool)));
}

int64_t pydpdk_alloc_bulk(int64_t pool, int64_t pkts, int64_t n)
{
	return rte_pktmbuf_alloc_bulk(POOL(pool), PKTS(pkts), n);
}

int64_t pydpdk_free(int64_t mbuf)
{
	rte_pktmbuf_free(MBUF(mbuf));
	return 0;
}

int64_t pydpdk_free_bulk(int64_t pkts, int64_t n)
{
	rte_pktmbuf_free_bulk(PKTS(pkts), n);
	return 0;
}

int64_t pydpdk_pool_avail_count(int64_t pool)
{
	return rte_mempool_avail_count(POOL(pool));
}

int64_t pydpdk_rdtsc(void)
{
	return rte_rdtsc();
}

int64_t pydpdk_tsc_hz(void)
{
	return rte_get_tsc_hz();
}

int64_t pydpdk_pause(void)
{
	rte_pause();
	return 0;
}

int64_t pydpdk_mbuf_data(int64_t mbuf)
{
	return ADDRESS(rte_pktmbuf_mtod(MBUF(mbuf), void *));
}

int64_t pydpdk_mbuf_data_len(int64_t mbuf)
{
	return rte_pktmbuf_data_len(MBUF(mbuf));
}

int64_t pydpdk_mbuf_pkt_len(int64_t mbuf)
{
	return rte_pktmbuf_pkt_len(MBUF(mbuf));
}

int64_t pydpdk_mbuf_set_len(int64_t mbuf, int64_t len)
{
	MBUF(mbuf)->pkt_len = len;
	return MBUF(mbuf)->data_len = len;
}

int64_t pydpdk_mbuf_next(int64_t mbuf)
{
	return ADDRESS(MBUF(mbuf)->next);
}

int64_t pydpdk_mbuf_nb_segs(int64_t mbuf)
{
	return MBUF(mbuf)->nb_segs;
}

int64_t pydpdk_mbuf_port(int64_t mbuf)
{
	return MBUF(mbuf)->port;
}

int64_t pydpdk_mbuf_headroom(int64_t mbuf)
{
	return rte_pktmbuf_headroom(MBUF(mbuf));
}

int64_t pydpdk_mbuf_tailroom(int64_t mbuf)
{
	return rte_pktmbuf_tailroom(MBUF(mbuf));
}

int64_t pydpdk_mbuf_ol_flags(int64_t mbuf)
{
	return MBUF(mbuf)->ol_flags;
}

int64_t pydpdk_mbuf_set_ol_flags(int64_t mbuf, int64_t flags)
{
	return MBUF(mbuf)->ol_flags = flags;
}

int64_t pydpdk_mbuf_set_tx_offload(int64_t mbuf, int64_t l2_len, int64_t l3_len, int64_t l4_len, int64_t tso_segsz)
{
	return MBUF(mbuf)->tx_offload = rte_mbuf_tx_offload(l2_len, l3_len, l4_len, tso_segsz, 0, 0, 0);
}

int64_t pydpdk_mbuf_rss_hash(int64_t mbuf)
{
	return MBUF(mbuf)->hash.rss;
}

int64_t pydpdk_mbuf_packet_type(int64_t mbuf)
{
	return MBUF(mbuf)->packet_type;
}

int64_t pydpdk_mbuf_vlan_tci(int64_t mbuf)
{
	return MBUF(mbuf)->vlan_tci;
}

#define SYMBOL(name) { #name, (void *)name }

const struct pydpdk_symbol pydpdk_symbols[] = {
	SYMBOL(pydpdk_rx_burst),
	SYMBOL(pydpdk_tx_burst),
	SYMBOL(pydpdk_tx_prepare),
	SYMBOL(pydpdk_tx_done_cleanup),
	SYMBOL(pydpdk_rx_queue_count),
	SYMBOL(pydpdk_rx_intr_enable),
	SYMBOL(pydpdk_rx_intr_disable),
	SYMBOL(pydpdk_alloc),
	SYMBOL(pydpdk_alloc_bulk),
	SYMBOL(pydpdk_free),
	SYMBOL(pydpdk_free_bulk),
	SYMBOL(pydpdk_pool_avail_count),
	SYMBOL(pydpdk_rdtsc),
	SYMBOL(pydpdk_tsc_hz),
	SYMBOL(pydpdk_pause),
	SYMBOL(pydpdk_mbuf_data),
	SYMBOL(pydpdk_mbuf_data_len),
	SYMBOL(pydpdk_mbuf_pkt_len),
	SYMBOL(pydpdk_mbuf_set_len),
	SYMBOL(pydpdk_mbuf_next),
	SYMBOL(pydpdk_mbuf_nb_segs),
	SYMBOL(pydpdk_mbuf_port),
	SYMBOL(pydpdk_mbuf_headroom),
	SYMBOL(pydpdk_mbuf_tailroom),
	SYMBOL(pydpdk_mbuf_ol_flags),
	SYMBOL(pydpdk_mbuf_set_ol_flags),
	SYMBOL(pydpdk_mbuf_set_tx_offload),
	SYMBOL(pydpdk_mbuf_rss_hash),
	SYMBOL(pydpdk_mbuf_packet_type),
	SYMBOL(pydpdk_mbuf_vlan_tci),
	{ NULL, NULL },
};

int pydpdk_errno(void)
{
	return rte_errno;
}

int pydpdk_socket_id(void)
{
	return rte_socket_id();
}

void pydpdk_flush(void)
{
	fflush(stdout);
}

uint16_t pydpdk_pool_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

static void put_back(struct rte_mempool *pool, void *opaque, void *mbuf, unsigned int index)
{
	rte_pktmbuf_init(pool, opaque, mbuf, index);
	rte_mempool_ops_enqueue_bulk(pool, &mbuf, 1);
}

int pydpdk_pool_refill(struct rte_mempool *pool)
{
	const struct rte_mempool_ops *ops = rte_mempool_get_ops(pool->ops_index);

	if (strncmp(ops->name, "ring_", 5) != 0)
		return -ENOTSUP;
	for (unsigned int lcore = 0; pool->cache_size != 0 && lcore < RTE_MAX_LCORE; lcore++)
		pool->local_cache[lcore].len = 0;
	rte_ring_reset(pool->pool_data);
	rte_mempool_obj_iter(pool, put_back, NULL);
	return 0;
}

uint64_t pydpdk_dev_flags(const struct rte_eth_dev_info *info)
{
	return *info->dev_flags;
}

void pydpdk_conf_interrupts(struct rte_eth_conf *conf, int lsc, int rxq, int rmv)
{
	conf->intr_conf.lsc = lsc;
	conf->intr_conf.rxq = rxq;
	conf->intr_conf.rmv = rmv;
}

struct rte_eth_rss_conf *pydpdk_conf_rss(struct rte_eth_conf *conf)
{
	return &conf->rx_adv_conf.rss_conf;
}

static int copy_link(int code, const struct rte_eth_link *link, struct pydpdk_link *out)
{
	out->speed_mbps = link->link_speed;
	out->full_duplex = link->link_duplex;
	out->autoneg = link->link_autoneg;
	out->up = link->link_status;
	return code;
}

int pydpdk_link_get(uint16_t port, struct pydpdk_link *out)
{
	struct rte_eth_link link = { 0 };
	int code = rte_eth_link_get(port, &link);
	return copy_link(code, &link, out);
}

int pydpdk_link_get_nowait(uint16_t port, struct pydpdk_link *out)
{
	struct rte_eth_link link = { 0 };
	int code = rte_eth_link_get_nowait(port, &link);
	return copy_link(code, &link, out);
}
