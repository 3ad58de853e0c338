/* DPDK's own declarations, in cffi's dialect: "..." is for the compiler to fill in. cffi checks each against DPDK's
 * headers when the extension is built, so a struct that changes with DPDK's version changes here by itself.
 */

/* rte_eal.h, rte_errno.h, rte_version.h, rte_log.h */
int rte_eal_init(int argc, char **argv);
int rte_eal_cleanup(void);
void rte_service_finalize(void);
int rte_eal_process_type(void);
int rte_eal_has_hugepages(void);
int rte_eal_primary_proc_alive(const char *config_file_path);
const char *rte_eal_get_runtime_dir(void);
const char *rte_strerror(int errnum);
const char *rte_version(void);
#define RTE_VER_YEAR ...
#define RTE_VER_MONTH ...
void rte_log_set_global_level(uint32_t level);
int rte_log_set_level_pattern(const char *pattern, uint32_t level);
#define RTE_LOG_ERR ...
#define RTE_LOG_WARNING ...
#define RTE_LOG_NOTICE ...
#define RTE_LOG_INFO ...
#define RTE_LOG_DEBUG ...

/* rte_lcore.h */
int rte_thread_register(void);
void rte_thread_unregister(void);
unsigned int rte_lcore_count(void);
unsigned int rte_get_main_lcore(void);
#define RTE_MAX_LCORE ...
#define LCORE_ID_ANY ...

/* rte_dev.h */
struct rte_device;
int rte_eal_hotplug_add(const char *busname, const char *devname, const char *drvargs);
int rte_eal_hotplug_remove(const char *busname, const char *devname);
int rte_dev_probe(const char *devargs);
int rte_dev_remove(struct rte_device *dev);
const char *rte_dev_name(const struct rte_device *dev);

/* rte_mempool.h, rte_mbuf.h */
struct rte_mempool {
	char name[...];
	unsigned int flags;
	int socket_id;
	uint32_t size;
	uint32_t cache_size;
	uint32_t elt_size;
	uint32_t populated_size;
	...;
};
struct rte_mempool *rte_pktmbuf_pool_create(const char *name, unsigned n, unsigned cache_size, uint16_t priv_size,
	uint16_t data_room_size, int socket_id);
struct rte_mempool *rte_mempool_create_empty(const char *name, unsigned n, unsigned elt_size, unsigned cache_size,
	unsigned private_data_size, int socket_id, unsigned flags);
int rte_mempool_set_ops_byname(struct rte_mempool *mp, const char *name, void *pool_config);
int rte_mempool_populate_default(struct rte_mempool *mp);
struct rte_pktmbuf_pool_private {
	uint16_t mbuf_data_room_size;
	uint16_t mbuf_priv_size;
	...;
};
void rte_pktmbuf_pool_init(struct rte_mempool *mp, void *sizes);
const char *rte_mbuf_best_mempool_ops(void);
typedef void (rte_mempool_obj_cb_t)(struct rte_mempool *mp, void *opaque, void *obj, unsigned obj_idx);
void rte_pktmbuf_init(struct rte_mempool *mp, void *opaque, void *obj, unsigned obj_idx);
uint32_t rte_mempool_obj_iter(struct rte_mempool *mp, rte_mempool_obj_cb_t *obj_cb, void *obj_cb_arg);
#define RTE_MEMPOOL_F_NO_IOVA_CONTIG ...
#define RTE_MBUF_PRIV_ALIGN ...
struct rte_mempool *rte_mempool_lookup(const char *name);
void rte_mempool_free(struct rte_mempool *mp);
unsigned int rte_mempool_avail_count(const struct rte_mempool *mp);
unsigned int rte_mempool_in_use_count(const struct rte_mempool *mp);
#define RTE_MBUF_DEFAULT_BUF_SIZE ...
#define RTE_MEMPOOL_CACHE_MAX_SIZE ...
#define RTE_PKTMBUF_HEADROOM ...
#define SOCKET_ID_ANY ...
struct rte_mbuf {
	void *buf_addr;
	uint16_t data_off;
	uint16_t refcnt;
	uint16_t nb_segs;
	uint16_t port;
	uint64_t ol_flags;
	uint32_t packet_type;
	uint32_t pkt_len;
	uint16_t data_len;
	uint16_t vlan_tci;
	uint16_t buf_len;
	struct rte_mempool *pool;
	struct rte_mbuf *next;
	uint64_t tx_offload;
	...;
};

/* rte_memzone.h */
struct rte_memzone {
	char name[...];
	uint64_t iova;
	void *addr;
	size_t len;
	uint64_t hugepage_sz;
	int32_t socket_id;
	...;
};
const struct rte_memzone *rte_memzone_reserve_aligned(const char *name, size_t len, int socket_id, unsigned flags,
	unsigned align);
const struct rte_memzone *rte_memzone_lookup(const char *name);
int rte_memzone_free(const struct rte_memzone *mz);
#define RTE_MEMZONE_IOVA_CONTIG ...
#define RTE_CACHE_LINE_SIZE ...

/* rte_ethdev.h: configuration */
struct rte_ether_addr { uint8_t addr_bytes[6]; ...; };
struct rte_eth_rxmode { uint32_t mq_mode; uint32_t mtu; uint64_t offloads; ...; };
struct rte_eth_txmode { uint64_t offloads; ...; };
struct rte_eth_rss_conf { uint8_t *rss_key; uint8_t rss_key_len; uint64_t rss_hf; ...; };
struct rte_eth_conf {
	uint32_t link_speeds;
	struct rte_eth_rxmode rxmode;
	struct rte_eth_txmode txmode;
	uint32_t lpbk_mode;
	...;
};
struct rte_eth_rxconf {
	uint16_t rx_free_thresh;
	uint8_t rx_drop_en;
	uint8_t rx_deferred_start;
	uint64_t offloads;
	...;
};
struct rte_eth_txconf {
	uint16_t tx_rs_thresh;
	uint16_t tx_free_thresh;
	uint8_t tx_deferred_start;
	uint64_t offloads;
	...;
};
struct rte_eth_desc_lim { uint16_t nb_max; uint16_t nb_min; uint16_t nb_align; uint16_t nb_seg_max; ...; };
struct rte_eth_dev_portconf { uint16_t burst_size; uint16_t ring_size; uint16_t nb_queues; ...; };
struct rte_eth_dev_info {
	struct rte_device *device;
	const char *driver_name;
	unsigned int if_index;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint32_t min_rx_bufsize;
	uint32_t max_rx_pktlen;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint32_t max_mac_addrs;
	uint64_t rx_offload_capa;
	uint64_t tx_offload_capa;
	uint64_t rx_queue_offload_capa;
	uint64_t tx_queue_offload_capa;
	uint16_t reta_size;
	uint8_t hash_key_size;
	uint64_t flow_type_rss_offloads;
	struct rte_eth_rxconf default_rxconf;
	struct rte_eth_txconf default_txconf;
	struct rte_eth_desc_lim rx_desc_lim;
	struct rte_eth_desc_lim tx_desc_lim;
	uint32_t speed_capa;
	uint16_t nb_rx_queues;
	uint16_t nb_tx_queues;
	struct rte_eth_dev_portconf default_rxportconf;
	struct rte_eth_dev_portconf default_txportconf;
	uint64_t dev_capa;
	...;
};
#define RTE_ETH_MQ_RX_NONE ...
#define RTE_ETH_MQ_RX_RSS ...
#define RTE_ETH_NAME_MAX_LEN ...
#define RTE_MAX_ETHPORTS ...
#define RTE_ETHER_MIN_MTU ...

/* rte_ethdev.h: ports */
uint16_t rte_eth_dev_count_avail(void);
uint16_t rte_eth_find_next(uint16_t port_id);
int rte_eth_dev_is_valid_port(uint16_t port_id);
int rte_eth_dev_get_port_by_name(const char *name, uint16_t *port_id);
int rte_eth_dev_get_name_by_port(uint16_t port_id, char *name);
int rte_eth_dev_socket_id(uint16_t port_id);
int rte_eth_dev_info_get(uint16_t port_id, struct rte_eth_dev_info *dev_info);
int rte_eth_dev_configure(uint16_t port_id, uint16_t nb_rx_queue, uint16_t nb_tx_queue,
	const struct rte_eth_conf *eth_conf);
int rte_eth_dev_adjust_nb_rx_tx_desc(uint16_t port_id, uint16_t *nb_rx_desc, uint16_t *nb_tx_desc);
int rte_eth_rx_queue_setup(uint16_t port_id, uint16_t rx_queue_id, uint16_t nb_rx_desc, unsigned int socket_id,
	const struct rte_eth_rxconf *rx_conf, struct rte_mempool *mb_pool);
int rte_eth_tx_queue_setup(uint16_t port_id, uint16_t tx_queue_id, uint16_t nb_tx_desc, unsigned int socket_id,
	const struct rte_eth_txconf *tx_conf);
int rte_eth_dev_start(uint16_t port_id);
int rte_eth_dev_stop(uint16_t port_id);
int rte_eth_dev_close(uint16_t port_id);
int rte_eth_dev_reset(uint16_t port_id);
int rte_eth_dev_set_link_up(uint16_t port_id);
int rte_eth_dev_set_link_down(uint16_t port_id);
int rte_eth_dev_rx_queue_start(uint16_t port_id, uint16_t rx_queue_id);
int rte_eth_dev_rx_queue_stop(uint16_t port_id, uint16_t rx_queue_id);
int rte_eth_dev_tx_queue_start(uint16_t port_id, uint16_t tx_queue_id);
int rte_eth_dev_tx_queue_stop(uint16_t port_id, uint16_t tx_queue_id);

/* rte_ethdev.h: addresses and modes */
int rte_eth_macaddr_get(uint16_t port_id, struct rte_ether_addr *mac_addr);
int rte_eth_dev_default_mac_addr_set(uint16_t port_id, struct rte_ether_addr *mac_addr);
int rte_eth_dev_mac_addr_add(uint16_t port_id, struct rte_ether_addr *mac_addr, uint32_t pool);
int rte_eth_dev_mac_addr_remove(uint16_t port_id, struct rte_ether_addr *mac_addr);
int rte_eth_dev_get_mtu(uint16_t port_id, uint16_t *mtu);
int rte_eth_dev_set_mtu(uint16_t port_id, uint16_t mtu);
int rte_eth_promiscuous_enable(uint16_t port_id);
int rte_eth_promiscuous_disable(uint16_t port_id);
int rte_eth_promiscuous_get(uint16_t port_id);
int rte_eth_allmulticast_enable(uint16_t port_id);
int rte_eth_allmulticast_disable(uint16_t port_id);
int rte_eth_allmulticast_get(uint16_t port_id);

/* rte_ethdev.h: offloads and RSS */
const char *rte_eth_dev_rx_offload_name(uint64_t offload);
const char *rte_eth_dev_tx_offload_name(uint64_t offload);
#define RTE_ETH_RETA_GROUP_SIZE ...
struct rte_eth_rss_reta_entry64 { uint64_t mask; uint16_t reta[...]; ...; };
int rte_eth_dev_rss_reta_query(uint16_t port_id, struct rte_eth_rss_reta_entry64 *reta_conf, uint16_t reta_size);
int rte_eth_dev_rss_reta_update(uint16_t port_id, struct rte_eth_rss_reta_entry64 *reta_conf, uint16_t reta_size);
int rte_eth_dev_rss_hash_conf_get(uint16_t port_id, struct rte_eth_rss_conf *rss_conf);
int rte_eth_dev_rss_hash_update(uint16_t port_id, struct rte_eth_rss_conf *rss_conf);
#define RTE_ETH_RSS_IPV4 ...
#define RTE_ETH_RSS_FRAG_IPV4 ...
#define RTE_ETH_RSS_NONFRAG_IPV4_TCP ...
#define RTE_ETH_RSS_NONFRAG_IPV4_UDP ...
#define RTE_ETH_RSS_NONFRAG_IPV4_SCTP ...
#define RTE_ETH_RSS_NONFRAG_IPV4_OTHER ...
#define RTE_ETH_RSS_IPV6 ...
#define RTE_ETH_RSS_FRAG_IPV6 ...
#define RTE_ETH_RSS_NONFRAG_IPV6_TCP ...
#define RTE_ETH_RSS_NONFRAG_IPV6_UDP ...
#define RTE_ETH_RSS_NONFRAG_IPV6_SCTP ...
#define RTE_ETH_RSS_NONFRAG_IPV6_OTHER ...
#define RTE_ETH_RSS_L2_PAYLOAD ...
#define RTE_ETH_RSS_IPV6_EX ...
#define RTE_ETH_RSS_IPV6_TCP_EX ...
#define RTE_ETH_RSS_IPV6_UDP_EX ...
#define RTE_ETH_RSS_PORT ...
#define RTE_ETH_RSS_VXLAN ...
#define RTE_ETH_RSS_GENEVE ...
#define RTE_ETH_RSS_NVGRE ...
#define RTE_ETH_RSS_GTPU ...
#define RTE_ETH_RSS_ETH ...
#define RTE_ETH_RSS_S_VLAN ...
#define RTE_ETH_RSS_C_VLAN ...
#define RTE_ETH_RSS_ESP ...
#define RTE_ETH_RSS_AH ...
#define RTE_ETH_RSS_MPLS ...
#define RTE_ETH_RSS_L3_SRC_ONLY ...
#define RTE_ETH_RSS_L3_DST_ONLY ...
#define RTE_ETH_RSS_L4_SRC_ONLY ...
#define RTE_ETH_RSS_L4_DST_ONLY ...

/* rte_ethdev.h: statistics and interrupts */
struct rte_eth_stats {
	uint64_t ipackets;
	uint64_t opackets;
	uint64_t ibytes;
	uint64_t obytes;
	uint64_t imissed;
	uint64_t ierrors;
	uint64_t oerrors;
	uint64_t rx_nombuf;
	...;
};
struct rte_eth_xstat { uint64_t id; uint64_t value; ...; };
struct rte_eth_xstat_name { char name[...]; ...; };
int rte_eth_stats_get(uint16_t port_id, struct rte_eth_stats *stats);
int rte_eth_stats_reset(uint16_t port_id);
int rte_eth_xstats_get(uint16_t port_id, struct rte_eth_xstat *xstats, unsigned int n);
int rte_eth_xstats_get_names(uint16_t port_id, struct rte_eth_xstat_name *xstats_names, unsigned int size);
int rte_eth_xstats_reset(uint16_t port_id);
int rte_eth_dev_rx_intr_enable(uint16_t port_id, uint16_t queue_id);
int rte_eth_dev_rx_intr_disable(uint16_t port_id, uint16_t queue_id);
int rte_eth_dev_rx_intr_ctl_q_get_fd(uint16_t port_id, uint16_t queue_id);
