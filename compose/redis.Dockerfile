# Redis as an ordinary user: a named volume takes the owner of the folder it is first mounted on.
FROM redis:7-bookworm
RUN chown 10001:10001 /data
USER 10001:10001
ENTRYPOINT []
CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--save", "", \
     "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
