{{/* What other charts include. Each takes the root context; as a dependency the values stand below `attache`. */}}

{{/* The values of attaché, wherever they stand. */}}
{{- define "attache.values" -}}
{{- if eq .Chart.Name "attache" -}}
{{ toYaml .Values }}
{{- else -}}
{{ toYaml (get .Values "attache") }}
{{- end -}}
{{- end -}}

{{/* Depends on the release alone, so that it is the same for this chart and for one that includes it. */}}
{{- define "attache.name" -}}
{{- if contains "attache" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-attache" (.Release.Name | trunc 55 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{/* The label by which the PodMonitor finds a pod. */}}
{{- define "attache.labels" -}}
attache: sidecar
{{- end -}}

{{/* Changes when the configuration changes, for the annotations of the pod: so its pods are rolled. */}}
{{- define "attache.checksum" -}}
attache/config: {{ include "attache.config" . | sha256sum }}
{{- end -}}

{{/* The configuration as attaché reads it. */}}
{{- define "attache.config" -}}
{{- $values := include "attache.values" . | fromYaml -}}
{{- $config := deepCopy (default dict $values.config) -}}
{{- $_ := set $config "admin" (mergeOverwrite (dict "listen" "0.0.0.0:7090") (default dict $config.admin)) -}}
{{- $_ := set $config "log" (mergeOverwrite (dict "format" "json") (default dict $config.log)) -}}
{{- if and (eq .Chart.Name "attache") $values.standalone.enabled -}}
{{- $name := include "attache.name" . -}}
{{- $own := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- $proxy := default dict $config.proxy -}}
{{- $hosts := concat $own (default list $values.standalone.allowedHosts) (default list $proxy.allowed_hosts) | uniq -}}
{{- $_ := set $config "proxy" (mergeOverwrite (dict "listen" "0.0.0.0:7080") $proxy (dict "allowed_hosts" $hosts)) -}}
{{- $_ := set $config "shutdown" (mergeOverwrite (dict "drain_delay" "5s") (default dict $config.shutdown)) -}}
{{- end -}}
{{ toYaml $config }}
{{- end -}}

{{/* What would fail only in the cluster, or lose a refresh token there. */}}
{{- define "attache.checkStorage" -}}
{{- $values := include "attache.values" . | fromYaml -}}
{{- $standalone := and (eq .Chart.Name "attache") $values.standalone.enabled -}}
{{- $replicas := ternary (int $values.standalone.replicas) 1 $standalone -}}
{{- range $name, $credential := default dict (default dict $values.config).credentials -}}
{{- with $credential.store -}}
{{- if and (not $values.storage) (not $values.extraVolumeMounts) -}}
{{- fail (printf "config.credentials.%s.store: nothing there can be written to; set `storage`" $name) -}}
{{- end -}}
{{- if and (hasKey (default dict $values.storage) "emptyDir") (regexMatch "^/var/lib/attache/[^/]+$" .) -}}
{{- fail (printf "config.credentials.%s.store: everybody can write to an emptyDir, which attaché refuses; name a folder of its own, such as /var/lib/attache/store/%s" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (default "" $credential.type) "refresh_token") (gt $replicas 1) -}}
{{- fail (printf "config.credentials.%s: a refresh token that rotates serves one process; set `standalone.replicas: 1`" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey (default dict $values.storage) "persistentVolumeClaim") (gt $replicas 1) -}}
{{- fail "storage.persistentVolumeClaim: one process uses a store at a time; set `standalone.replicas: 1`" -}}
{{- end -}}
{{- end -}}

{{/* What probes, scrapes, the Service and the NetworkPolicy expect where. */}}
{{- define "attache.checkPorts" -}}
{{- $values := include "attache.values" . | fromYaml -}}
{{- $config := include "attache.config" . | fromYaml -}}
{{- if not (hasSuffix ":7090" $config.admin.listen) -}}
{{- fail (printf "config.admin.listen: %s: probes and scrapes come to port 7090" $config.admin.listen) -}}
{{- end -}}
{{- if and (eq .Chart.Name "attache") $values.standalone.enabled (not (hasSuffix ":7080" $config.proxy.listen)) -}}
{{- fail (printf "config.proxy.listen: %s: the Service and the NetworkPolicy lead to port 7080" $config.proxy.listen) -}}
{{- end -}}
{{- end -}}

{{/* The container, without what makes it a sidecar. */}}
{{- define "attache.container" -}}
{{- include "attache.checkPorts" . -}}
{{- $values := include "attache.values" . | fromYaml -}}
{{- $image := $values.image -}}
{{- /* `.Chart` is the including chart's there, so the version stands here too. */ -}}
{{- $version := "0.1.0" -}}
- name: attache
  {{- if $image.digest }}
  image: {{ printf "%s@%s" $image.repository $image.digest | quote }}
  {{- else }}
  image: {{ printf "%s:%s" $image.repository (default $version $image.tag) | quote }}
  {{- end }}
  imagePullPolicy: {{ $image.pullPolicy }}
  args: [run, --config, /etc/attache/attache.yaml]
  {{- with $values.env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: attache-admin, containerPort: 7090}
    {{- if and (eq .Chart.Name "attache") $values.standalone.enabled }}
    - {name: attache, containerPort: 7080}
    {{- end }}
  startupProbe:
    httpGet: {path: /{{ $values.probes.startup }}, port: attache-admin}
    periodSeconds: 2
    failureThreshold: {{ int $values.probes.startupFailureThreshold }}
  readinessProbe:
    httpGet: {path: /readyz, port: attache-admin}
    periodSeconds: 5
  livenessProbe:
    httpGet: {path: /livez, port: attache-admin}
    periodSeconds: 10
    failureThreshold: 3
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    - {name: attache-config, mountPath: /etc/attache, readOnly: true}
    {{- if or $values.secrets $values.serviceAccountTokens }}
    - {name: attache-secrets, mountPath: /run/secrets/attache, readOnly: true}
    {{- end }}
    {{- if $values.storage }}
    - {name: attache-storage, mountPath: /var/lib/attache}
    {{- end }}
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* For `initContainers` of your pod: a native sidecar. Your pod also needs `fsGroup: 65532`, so that attaché, and
     nobody else, can read its secrets. */}}
{{- define "attache.sidecar" -}}
{{- $values := include "attache.values" . | fromYaml -}}
{{- if $values.standalone.enabled -}}
{{- /* The ConfigMap is then that of the Deployment, whose port other pods reach. */ -}}
{{- fail "attache.standalone.enabled: a sidecar would listen on all addresses of the pod; set it to false" -}}
{{- end -}}
{{ include "attache.container" . }}
  restartPolicy: Always
{{- end -}}

{{/* For `volumes` of your pod. */}}
{{- define "attache.volumes" -}}
{{- include "attache.checkStorage" . -}}
{{- $values := include "attache.values" . | fromYaml -}}
- name: attache-config
  configMap:
    name: {{ include "attache.name" . }}
{{- if or $values.secrets $values.serviceAccountTokens }}
- name: attache-secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $values.secrets }}
      - secret:
          name: {{ .secretName }}
          items:
            - {key: {{ .key | quote }}, path: {{ .file | quote }}}
      {{- end }}
      {{- range $values.serviceAccountTokens }}
      - serviceAccountToken:
          audience: {{ .audience | quote }}
          expirationSeconds: {{ int (default 3600 .expirationSeconds) }}
          path: {{ .file | quote }}
      {{- end }}
{{- end }}
{{- if $values.storage }}
- name: attache-storage
  {{- toYaml $values.storage | nindent 2 }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
