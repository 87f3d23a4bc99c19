# A static binary in an empty image.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /cairn ./cmd/cairn && mkdir /data

FROM scratch
COPY --from=build /cairn /cairn
COPY --from=build --chown=10000:10000 /data /data
USER 10000
VOLUME /data
ENTRYPOINT ["/cairn"]
CMD ["start", "--data-dir", "/data"]
