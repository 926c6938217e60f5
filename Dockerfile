# The router. Multi-arch by construction: nothing in it is compiled for one machine.
#   docker build -t lanward .            or with another base: --build-arg BASE=python:3.11-slim-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        $(command -v python3 >/dev/null || echo python3) $(python3 -m ensurepip --version >/dev/null 2>&1 || echo python3-venv) \
    && python3 -m venv /opt/lanward
# Where a library has no wheel for this machine, its pure Python does: no compiler on any of them.
ENV AIOHTTP_NO_EXTENSIONS=1 FROZENLIST_NO_EXTENSIONS=1 MULTIDICT_NO_EXTENSIONS=1 PROPCACHE_NO_EXTENSIONS=1 \
    YARL_NO_EXTENSIONS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml README.md /source/
COPY dhcpd /source/dhcpd
COPY leasebroker /source/leasebroker
COPY router /source/router
# scapy and pyroute2 bring protocols and tools by the hundred that nothing here speaks; of the libraries only what each
# start loads is compiled, by loading it.
RUN /opt/lanward/bin/pip install --quiet /source \
    && /opt/lanward/bin/pip uninstall --quiet --yes pip setuptools \
    && cd /opt/lanward/lib/python3*/site-packages \
    && rm -rf scapy/contrib scapy/tools scapy/modules \
    && find . -name tests -type d -prune -exec rm -rf {} + \
    && find . -name __pycache__ -type d -prune -exec rm -rf {} + \
    && python3 -m compileall -q dhcpd leasebroker router \
    && /opt/lanward/bin/python -c 'import aiohttp.web, leasebroker.broker, router.app, router.forwarding, router.host'

# What is never used goes, and the last stage takes what is left: a layer can hide files of its base, not shrink it.
FROM ${BASE} AS run
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nftables $(command -v python3 >/dev/null || echo python3) \
    && apt-get clean \
    && for one in ensurepip idlelib lib2to3 pydoc_data test tkinter; do \
        rm -rf /usr/lib/python3.*/$one /usr/local/lib/python3.*/$one; done \
    && rm -rf /usr/lib/*/gconv /usr/lib/*/perl* /usr/lib/*/libperl* /usr/share/perl* /usr/bin/perl* \
        /usr/lib/apt /usr/lib/*/libapt-* /usr/bin/apt* /etc/apt \
        /usr/share/doc /usr/share/info /usr/share/locale /usr/share/man /usr/share/zoneinfo \
        /var/cache/apt /var/cache/debconf /var/lib/apt/lists /var/log/*
COPY --from=build /opt/lanward /opt/lanward

FROM scratch
COPY --from=run / /
ENV PATH=/opt/lanward/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=10s --start-period=15s CMD ["lanward", "health"]
ENTRYPOINT ["lanward"]
CMD ["run"]
