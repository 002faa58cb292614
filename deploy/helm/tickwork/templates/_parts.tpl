{{/* Names and labels. */}}
{{- define "tickwork.name" -}}
{{- $default := ternary .Release.Name (printf "%s-tickwork" .Release.Name) (contains "tickwork" .Release.Name) -}}
{{- default $default .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "tickwork.selector" -}}
app.kubernetes.io/name: tickwork
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tickwork.labels" -}}
{{ include "tickwork.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tickwork.account" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "tickwork.name" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* An image, from the settings of a pool over those of all. Takes (dict "all" ... "own" ... "chart" ...). */}}
{{- define "tickwork.image" -}}
{{- $image := mergeOverwrite (deepCopy .all) (default dict .own) -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{/* kafka://BROKERS/PREFIX?OPTIONS, without a password. */}}
{{- define "tickwork.bus" -}}
{{- $pairs := list -}}
{{- range $name, $value := .Values.bus.options -}}
{{- /* A whole number that came through JSON is a float here, and a large one would be written as 4e+06. */ -}}
{{- $whole := and (kindIs "float64" $value) (eq (toString (floor $value)) (toString $value)) -}}
{{- $shown := ternary (toString (int64 $value)) (toString $value) $whole -}}
{{- $pairs = append $pairs (printf "%s=%s" $name (urlquery $shown)) -}}
{{- end -}}
kafka://{{ .Values.bus.brokers }}{{ with .Values.bus.prefix }}/{{ . }}{{ end }}{{ with $pairs }}?{{ join "&" . }}{{ end }}
{{- end }}

{{/*
Every deployment of the release, as a list: its name, the role it serves, the consumer group whose lag says how much
there is to do, how its queue is called among the metrics, and its own settings.
*/}}
{{- define "tickwork.workloads" -}}
{{- $found := list
    (dict "name" "data-plane" "role" "data-plane" "group" "data-plane" "queue" "data_plane" "own" .Values.dataPlane)
    (dict "name" "control-plane" "role" "control-plane" "group" "control-plane" "queue" "control_plane" "own" .Values.controlPlane)
    (dict "name" "sweeper" "role" "sweeper" "own" .Values.sweeper)
-}}
{{- range $pool, $own := .Values.executors -}}
{{- $found = append $found (dict "name" (printf "executor-%s" $pool) "role" "executor" "pool" $pool "group" (eq $pool "default" | ternary "executors" (printf "executors.%s" $pool)) "queue" "executor" "own" $own) -}}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{/* Labels of one deployment's pods. Takes (dict "top" $ "it" workload). */}}
{{- define "tickwork.podSelector" -}}
{{ include "tickwork.selector" .top }}
app.kubernetes.io/component: {{ .it.role }}
{{- with .it.pool }}
tickwork/pool: {{ . }}
{{- end }}
{{- end }}

{{- define "tickwork.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
