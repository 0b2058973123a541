{{- define "rerankd.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "rerankd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rerankd.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{ include "rerankd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* "yes" if a model comes from the hub. */}}
{{- define "rerankd.fetches" -}}
{{- if and (ne .Values.modelCache.kind "image") (ne .Values.model.id "builtin") (not (hasPrefix "/" .Values.model.id)) }}yes{{ end }}
{{- end }}

{{- define "rerankd.claim" -}}
{{ .Values.modelCache.existingClaim | default (printf "%s-cache" (include "rerankd.name" .)) }}
{{- end }}

{{/* Where probes and Prometheus ask. */}}
{{- define "rerankd.healthPort" -}}
{{ ternary "health" "http" (gt (int .Values.healthPort) 0) }}
{{- end }}

{{/* The end of an httpGet. */}}
{{- define "rerankd.probe" -}}
port: {{ include "rerankd.healthPort" . }}{{ if and .Values.certificate.secret (not .Values.healthPort) }}, scheme: HTTPS{{ end }}
{{- end }}

{{/* What the init container and the server have in common. */}}
{{- define "rerankd.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  {{- $resources := deepCopy .Values.resources }}
  {{- if .Values.gpu.enabled }}
  {{- $gpu := dict "limits" (dict .Values.gpu.resource 1) }}
  {{- $resources = mergeOverwrite $resources $gpu }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: config, mountPath: /etc/rerankd/config, readOnly: true}
  {{- if ne .Values.modelCache.kind "image" }}
  - {name: cache, mountPath: /cache}
  {{- end }}
  {{- if .Values.keys.secret }}
  - {name: keys, mountPath: /etc/rerankd/keys, readOnly: true}
  {{- end }}
  {{- if .Values.certificate.secret }}
  - {name: tls, mountPath: /etc/rerankd/tls, readOnly: true}
  {{- end }}
  {{- if .Values.certificate.clientCaSecret }}
  - {name: client-ca, mountPath: /etc/rerankd/client-ca, readOnly: true}
  {{- end }}
{{- end }}

{{- define "rerankd.environment" -}}
- {name: RERANKD__MODEL__ID, value: {{ .Values.model.id | quote }}}
{{- with .Values.model.revision }}
- {name: RERANKD__MODEL__REVISION, value: {{ . | quote }}}
{{- end }}
- {name: RERANKD__ENGINE__DTYPE, value: {{ .Values.model.dtype }}}
- {name: RERANKD__ENGINE__DEVICE, value: {{ ternary "cuda" "cpu" .Values.gpu.enabled }}}
{{- with .Values.hub.endpoint }}
- {name: HF_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if .Values.hub.tokenSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.hub.tokenSecret }}, key: {{ .Values.hub.tokenKey }}}}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
