/* What DPDK offers only as static inlines, macros and bit-fields, as functions with symbols.
 *
 * The first half is for compiled code: every argument and result is an int64_t, so that one signature shape serves
 * numba, ctypes and C alike. An mbuf, a pool and an array of mbufs are their addresses. Nothing here checks anything.
 * cffi parses this file as it stands: declarations and comments only.
 */

/* frames: rte_ethdev.h */
int64_t pydpdk_rx_burst(int64_t port, int64_t queue, int64_t pkts, int64_t n);
int64_t pydpdk_tx_burst(int64_t port, int64_t queue, int64_t pkts, int64_t n);
int64_t pydpdk_tx_prepare(int64_t port, int64_t queue, int64_t pkts, int64_t n);
int64_t pydpdk_tx_done_cleanup(int64_t port, int64_t queue, int64_t n);
int64_t pydpdk_rx_queue_count(int64_t port, int64_t queue);
int64_t pydpdk_rx_intr_enable(int64_t port, int64_t queue);
int64_t pydpdk_rx_intr_disable(int64_t port, int64_t queue);

/* buffers: rte_mbuf.h, rte_mempool.h */
int64_t pydpdk_alloc(int64_t pool);
int64_t pydpdk_alloc_bulk(int64_t pool, int64_t pkts, int64_t n);
int64_t pydpdk_free(int64_t mbuf);
int64_t pydpdk_free_bulk(int64_t pkts, int64_t n);
int64_t pydpdk_pool_avail_count(int64_t pool);

/* clock: rte_cycles.h, rte_pause.h */
int64_t pydpdk_rdtsc(void);
int64_t pydpdk_tsc_hz(void);
int64_t pydpdk_pause(void);

/* mbuf fields: rte_mbuf_core.h */
int64_t pydpdk_mbuf_data(int64_t mbuf);
int64_t pydpdk_mbuf_data_len(int64_t mbuf);
int64_t pydpdk_mbuf_pkt_len(int64_t mbuf);
int64_t pydpdk_mbuf_set_len(int64_t mbuf, int64_t len);
int64_t pydpdk_mbuf_next(int64_t mbuf);
int64_t pydpdk_mbuf_nb_segs(int64_t mbuf);
int64_t pydpdk_mbuf_port(int64_t mbuf);
int64_t pydpdk_mbuf_headroom(int64_t mbuf);
int64_t pydpdk_mbuf_tailroom(int64_t mbuf);
int64_t pydpdk_mbuf_ol_flags(int64_t mbuf);
int64_t pydpdk_mbuf_set_ol_flags(int64_t mbuf, int64_t flags);
int64_t pydpdk_mbuf_set_tx_offload(int64_t mbuf, int64_t l2_len, int64_t l3_len, int64_t l4_len, int64_t tso_segsz);
int64_t pydpdk_mbuf_rss_hash(int64_t mbuf);
int64_t pydpdk_mbuf_packet_type(int64_t mbuf);
int64_t pydpdk_mbuf_vlan_tci(int64_t mbuf);

/* The functions above by name, ended by a name of NULL. */
struct pydpdk_symbol { const char *name; void *address; };
extern const struct pydpdk_symbol pydpdk_symbols[];

/* The rest is for Python: bit-fields, macros and inlines off the fast path. */
int pydpdk_errno(void);
int pydpdk_socket_id(void);
void pydpdk_flush(void);
uint16_t pydpdk_pool_data_room(struct rte_mempool *pool);
int pydpdk_pool_refill(struct rte_mempool *pool);
uint64_t pydpdk_dev_flags(const struct rte_eth_dev_info *info);
void pydpdk_conf_interrupts(struct rte_eth_conf *conf, int lsc, int rxq, int rmv);
struct rte_eth_rss_conf *pydpdk_conf_rss(struct rte_eth_conf *conf);

struct pydpdk_link { uint32_t speed_mbps; uint16_t full_duplex; uint16_t autoneg; uint16_t up; };
int pydpdk_link_get(uint16_t port, struct pydpdk_link *out);
int pydpdk_link_get_nowait(uint16_t port, struct pydpdk_link *out);

/* log.c: DPDK's log kept in memory, the last 64 KiB of it. */
int pydpdk_log_keep(void);
size_t pydpdk_log_read(char *out, size_t room);
