FROM localhost/b@sha256:abababababababababababababababababababababababababababababababab
COPY --chown=0:0 ["0-environment/", "/opt/conda/envs/wine/"]
COPY --chown=0:0 ["1-runtime/", "/opt/odahu/runtime/"]
COPY --chown=0:0 ["2-model/", "/opt/odahu/model/"]
ENV ODAHU_MODEL_NAME="a \"b\" \$HOME \\ é"
ENV ODAHU_MODEL_VERSION="1.0"
ENV MODEL_LOCATION="/opt/odahu/model/wine"
ENV MODEL_ENTRYPOINT="entrypoint"
ENV PATH="/opt/conda/envs/wine/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LABEL org.opencontainers.image.title="a \"b\" \$HOME \\ é"
LABEL org.opencontainers.image.version="1.0"
LABEL org.opencontainers.image.created="2026-01-02T03:04:05Z"
LABEL org.opencontainers.image.base.name="localhost/b:1"
LABEL org.opencontainers.image.base.digest="sha256:abababababababababababababababababababababababababababababababab"
LABEL org.odahu.packager.environment="sha256:1"
LABEL org.odahu.packager.version="0.1.0"
EXPOSE 5000
WORKDIR /opt/odahu/model
USER 10001:0
ENTRYPOINT ["/opt/conda/envs/wine/bin/python", "/opt/odahu/runtime", "rest"]
CMD ["--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--threads", "4", "--timeout", "60"]
