"""Only loopback counts as private, in whatever spelling."""

import pytest

from skyshore.runtime.listen import check_listen


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "127.9.9.9:0", "[::1]:80", "localhost:80", "LOCALHOST.:80"])
def test_loopback_needs_no_setting(listen):
    check_listen(listen, allow_wider=False)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "[::]:80", ":80", "80", "10.0.0.1:0", "127.1:80", "node-1:80", "localhost.evil.org:80"]
)
def test_everything_else_needs_one_and_the_message_names_it(listen):
    with pytest.raises(ValueError, match="SKYSHORE_ALLOW_WIDER_LISTEN=true"):
        check_listen(listen, allow_wider=False)
    check_listen(listen, allow_wider=True)
