{{- define "masklet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "masklet.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "masklet.labels" -}}
{{ include "masklet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "masklet.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "masklet.serviceAccount" -}}
{{ default (include "masklet.fullname" .) .Values.serviceAccount.name }}
{{- end -}}

{{/* What clients call: its part, and how many. */}}
{{- define "masklet.edge" -}}
{{ ternary "server" "gateway" (eq .Values.mode "server") }}
{{- end -}}

{{/* A value of YAML as text: Helm reads whole numbers as floating-point ones, and would write 3.3554432e+07. */}}
{{- define "masklet.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else if kindIs "slice" . }}{{ join "," . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* Settings as variables. Argument: a mapping of names to values. */}}
{{- define "masklet.settings" -}}
{{- range $name, $value := . }}
- {name: MASKLET_{{ upper $name }}, value: {{ include "masklet.text" $value | quote }}}
{{- end }}
{{- end -}}

{{/* How clients get in: settings of what they call. */}}
{{- define "masklet.access" -}}
{{- $access := dict }}
{{- if .Values.insecure }}{{ $_ := set $access "insecure" true }}{{ end }}
{{- if .Values.tls.secretName }}
{{- $_ := set $access "tls_certificate" "/etc/masklet/tls/tls.crt" }}
{{- $_ := set $access "tls_key" "/etc/masklet/tls/tls.key" }}
{{- if .Values.tls.clientCa }}{{ $_ := set $access "tls_client_ca" "/etc/masklet/tls/ca.crt" }}{{ end }}
{{- end }}
{{- if .Values.tokens.secretName }}{{ $_ := set $access "token_file" "/etc/masklet/tokens/tokens" }}{{ end }}
{{- toJson $access -}}
{{- end -}}

{{/* What a server is told in every mode. */}}
{{- define "masklet.server" -}}
{{- $own := dict "models" .Values.models "grace_seconds" .Values.servers.graceSeconds "metrics_address" "0.0.0.0:9090" }}
{{- if .Values.state.url }}{{ $_ := set $own "state_dir" .Values.state.url }}{{ end }}
{{- if include "masklet.claim" . }}{{ $_ := set $own "state_dir" "/var/lib/masklet" }}{{ end }}
{{- toJson (merge (deepCopy .Values.servers.settings) $own) -}}
{{- end -}}

{{/* What a gateway is told in every mode. */}}
{{- define "masklet.gateway" -}}
{{- $own := dict "address" "0.0.0.0:50051" "health_address" "0.0.0.0:50052" "metrics_address" "0.0.0.0:9090" "grace_seconds" .Values.gateways.graceSeconds }}
{{- toJson (merge (deepCopy .Values.gateways.settings) (include "masklet.access" . | fromJson) $own) -}}
{{- end -}}

{{- define "masklet.claim" -}}
{{- if .Values.state.existingClaim }}{{ .Values.state.existingClaim }}{{ else if .Values.state.size }}{{ include "masklet.fullname" . }}-state{{ end -}}
{{- end -}}

{{- define "masklet.downloads" -}}
{{- $names := list }}
{{- range .Values.models }}{{ $names = append $names (regexReplaceAll "@.*$" . "") }}{{ end }}
{{- without ($names | uniq) "nano" | join " " }}
{{- end -}}

{{- define "masklet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {{ toJson .Values.seccompProfile }}
{{- end -}}

{{- define "masklet.security" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end -}}

{{/* Where a pod runs. Arguments: the chart, and the values of the pod. */}}
{{- define "masklet.scheduling" -}}
{{- $pod := .pod }}
{{- with .chart.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- range $name := list "runtimeClassName" "priorityClassName" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $pod $name }}
{{ $name }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A server's part of /etc, /tmp and /var. */}}
{{- define "masklet.serverMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: models, mountPath: /var/cache/masklet}
{{- if include "masklet.claim" . }}
- {name: state, mountPath: /var/lib/masklet}
{{- end }}
{{- end -}}

{{- define "masklet.serverVolumes" -}}
- {name: tmp, emptyDir: {sizeLimit: {{ .Values.servers.scratchSize }}}}
{{- with .Values.modelCache.existingClaim }}
- {name: models, persistentVolumeClaim: {claimName: {{ . }}}}
{{- else }}
- {name: models, emptyDir: {sizeLimit: {{ .Values.modelCache.sizeLimit }}}}
{{- end }}
{{- with include "masklet.claim" . }}
- {name: state, persistentVolumeClaim: {claimName: {{ . }}}}
{{- end }}
{{- end -}}

{{- define "masklet.accessMounts" -}}
{{- if .Values.tls.secretName }}
- {name: tls, mountPath: /etc/masklet/tls, readOnly: true}
{{- end }}
{{- if .Values.tokens.secretName }}
- {name: tokens, mountPath: /etc/masklet/tokens, readOnly: true}
{{- end }}
{{- end -}}

{{- define "masklet.accessVolumes" -}}
{{- with .Values.tls.secretName }}
- {name: tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- if .Values.tokens.secretName }}
- {name: tokens, secret: {secretName: {{ .Values.tokens.secretName }}, items: [{key: {{ .Values.tokens.key }}, path: tokens}]}}
{{- end }}
{{- end -}}

{{/* Fetches models before the server starts. */}}
{{- define "masklet.download" -}}
{{- with include "masklet.downloads" . | trim }}
initContainers:
  - name: models
    image: {{ include "masklet.image" $ }}
    imagePullPolicy: {{ $.Values.image.pullPolicy }}
    command: [masklet, models, download]
    args: {{ splitList " " . | toJson }}
    env:
      - {name: HOME, value: /tmp}
    securityContext: {{ include "masklet.security" $ }}
    volumeMounts:
      {{- include "masklet.serverMounts" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "masklet.stateEnv" -}}
{{- with .Values.state.secretName }}
envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
{{- end -}}
