FROM docker.io/conda/conda:1
USER 0:0
COPY --chown=0:0 ["0-dependencies/", "/opt/odahu/"]
RUN ["/bin/sh", "-c", "conda env update --name \"$ODAHU_CONDA_ENV_NAME\" --file /opt/odahu/conda.yaml"]
COPY --chown=0:0 ["2-runtime/", "/opt/odahu/runtime/"]
COPY --chown=0:0 ["3-model/", "/opt/odahu/model/"]
ENV ODAHU_MODEL_NAME="wine"
ENV ODAHU_MODEL_VERSION="1.0"
ENV MODEL_LOCATION="/opt/odahu/model/wine"
ENV MODEL_ENTRYPOINT="entrypoint"
ENV PATH="/opt/conda/envs/odahu/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LABEL org.opencontainers.image.title="wine"
LABEL org.opencontainers.image.version="1.0"
LABEL org.opencontainers.image.created="2026-01-02T03:04:05Z"
LABEL org.opencontainers.image.base.name="docker.io/conda/conda:1"
LABEL org.odahu.packager.version="0.1.0"
WORKDIR /opt/odahu/model
USER conda
ENTRYPOINT ["/opt/conda/envs/odahu/bin/python", "/opt/odahu/runtime", "cli"]
CMD []
