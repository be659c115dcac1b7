{{- define "twill.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ $tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "twill.labels" -}}
app.kubernetes.io/name: twill
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: twill
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What selects the pods of one component; immutable once it is deployed. */}}
{{- define "twill.selector" -}}
app.kubernetes.io/name: twill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Environment of every daemon. */}}
{{- define "twill.environment" -}}
- name: TWILL_NODE
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: TWILL_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: RUST_LOG
  value: {{ .Values.log.level | quote }}
{{- with .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ $.Values.apiServer.port | quote }}
{{- end }}
{{- end -}}

{{/* Startup, liveness and readiness of a daemon, asked on its Unix socket. Liveness is generous: a restart helps only against a hang. */}}
{{- define "twill.probes" -}}
startupProbe:
  exec: {command: [/twill, ready, {{ . }}, --alive]}
  periodSeconds: 2
  timeoutSeconds: 6
  failureThreshold: 60
livenessProbe:
  exec: {command: [/twill, ready, {{ . }}, --alive]}
  periodSeconds: 30
  timeoutSeconds: 6
  failureThreshold: 4
readinessProbe:
  exec: {command: [/twill, ready, {{ . }}]}
  periodSeconds: 10
  timeoutSeconds: 6
{{- end -}}

{{/* Directories of the node in which felix works. */}}
{{- define "twill.mounts" -}}
- {name: run, mountPath: /run/twill}
- {name: state, mountPath: /var/lib/twill}
- {name: cni-bin, mountPath: /host/cni/bin}
- {name: cni-conf, mountPath: /host/cni/net.d}
{{- end -}}

{{/* `twill uninstall` in the place of the daemons. */}}
{{- define "twill.uninstaller" -}}
- name: {{ .name }}
  image: {{ include "twill.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [/twill]
  args:
  - uninstall
  - --yes
  - --node=$(TWILL_NODE)
  - "--datastore=kubernetes:"
  - --cni-bin-dir=/host/cni/bin
  - --cni-conf-dir=/host/cni/net.d
  {{- range .arguments }}
  - {{ . }}
  {{- end }}
  env:
  {{- include "twill.environment" .root | nindent 2 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL], add: [NET_ADMIN]}
  volumeMounts:
  {{- include "twill.mounts" .root | nindent 2 }}
{{- end -}}
