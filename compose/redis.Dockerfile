# Redis without root: a named volume gets the owner of the folder on which it is first mounted.
FROM redis:7-bookworm
RUN chown 10001:10001 /data
USER 10001:10001
ENTRYPOINT []
CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--save", "", \
     "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory", "1gb", "--maxmemory-policy", "noeviction"]
