{{/* The labels of this chart's own objects. */}}
{{- define "attache.objectLabels" -}}
{{ include "attache.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What selects the pods of the standalone Deployment. */}}
{{- define "attache.selector" -}}
app.kubernetes.io/name: attache
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
