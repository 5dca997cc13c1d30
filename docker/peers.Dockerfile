# The provider and the upstream of compose.yaml: the same programs as in tests/e2e.
FROM node:20-bookworm-slim
WORKDIR /peers
COPY tests/e2e/peers/package.json tests/e2e/peers/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tests/e2e/peers/*.mjs ./
USER node
