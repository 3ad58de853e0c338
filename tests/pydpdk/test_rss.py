"""RSS on net_null, which keeps a redirection table and a key."""

import pytest

pytestmark = pytest.mark.dpdk


def configured(start):
    from pydpdk import Mempool, Port

    start("net_null0")
    port, pool = Port(0), Mempool.create("frames", 1023)
    port.configure(2, 2, rss_hashes=["NONFRAG_IPV4_TCP"])
    for queue in range(2):
        port.setup_rx_queue(queue, pool)
        port.setup_tx_queue(queue)
    port.start()
    return port


def test_redirection_table(start):
    port = configured(start)
    table = [entry % 2 for entry in range(port.info().reta_size)]
    assert len(table) == 128
    port.set_reta(table)
    assert port.reta() == table


def test_entries_of_the_table_are_changed_one_by_one(start):
    port = configured(start)
    port.set_reta([entry % 2 for entry in range(128)])
    port.update_reta({0: 1, 127: 0})
    assert port.reta() == [1, *(entry % 2 for entry in range(1, 127)), 0]
    with pytest.raises(ValueError, match="no entry 128"):
        port.update_reta({128: 0})


def test_hashes_and_key(start):
    port = configured(start)
    key = bytes(range(40))
    port.set_rss(["IPV4", "NONFRAG_IPV4_TCP"], key)
    assert port.rss().hashes == {"IPV4", "NONFRAG_IPV4_TCP"}
    assert port.rss().key == key
    with pytest.raises(ValueError, match="40 bytes, not 3"):
        port.set_rss(["IPV4"], b"abc")


def test_unknown_hash_is_refused(start):
    port = configured(start)
    with pytest.raises(ValueError, match="no RSS hash function 'IPV9'"):
        port.set_rss(["IPV9"])
