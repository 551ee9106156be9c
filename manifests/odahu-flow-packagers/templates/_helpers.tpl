{{- define "packagers.labels" -}}
app.kubernetes.io/name: packager
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* An integration's document with this installation's image and default connections.
     Takes (dict "root" $ "name" "docker-rest" "values" .Values.rest). */}}
{{- define "packagers.integration" -}}
{{- $values := .values -}}
{{- $document := .root.Files.Get (printf "integrations/%s.yaml" .name) | fromYaml -}}
{{- $_ := set $document.spec "defaultImage" ($values.image | default .root.Values.image) -}}
{{- $known := list -}}
{{- range $target := $document.spec.schema.targets -}}
  {{- $known = append $known $target.name -}}
  {{- with index $values.targets $target.name -}}
    {{- $_ := set $target "default" . -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $values.targets -}}
  {{- if not (has $name $known) -}}
    {{- fail (printf "%s has no target %q; it has %s" $document.id $name (join ", " $known)) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $document -}}
{{- end }}
