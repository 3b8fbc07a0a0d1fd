// Command protobuf writes how the kinds of Kubernetes are encoded in protobuf: field numbers, JSON names and types.
// The facts are read by reflection from the Go types of k8s.io/api, k8s.io/apimachinery and
// k8s.io/apiextensions-apiserver (Apache-2.0), in the versions that go.mod names. To renew the table:
//
//	go mod tidy && go run . >../../src/body/protobuf.txt && go run . vectors >../../src/body/protobuf_vectors.jsonl
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	extensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// served are the group-versions whose kinds the server knows.
var served = strings.Fields(`v1 admissionregistration.k8s.io/v1 apps/v1 authentication.k8s.io/v1 authorization.k8s.io/v1
	autoscaling/v1 autoscaling/v2 batch/v1 certificates.k8s.io/v1 coordination.k8s.io/v1 discovery.k8s.io/v1
	events.k8s.io/v1 networking.k8s.io/v1 node.k8s.io/v1 policy/v1 rbac.authorization.k8s.io/v1 scheduling.k8s.io/v1
	storage.k8s.io/v1 apiextensions.k8s.io/v1`)

// special types have a JSON form of their own, which the decoder knows.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "quantity",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "microtime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "raw",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "raw",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "intorstring",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "schemaoritems",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "schemaorbool",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "schemaorstrings",
}

type marshaler interface{ Marshal() ([]byte, error) }

var lines = map[string]string{}

func name(t reflect.Type) string {
	path := strings.Split(t.PkgPath(), "/")
	return strings.Join(path[len(path)-2:], ".") + "." + t.Name()
}

// code says how a value of a Go type is encoded, and describes the messages in it.
func code(t reflect.Type) string {
	if word, ok := special[t.PkgPath()+"."+t.Name()]; ok {
		return word
	}
	named := t.Kind() == reflect.Slice && t.Name() != "" && reflect.PointerTo(t).Implements(reflect.TypeFor[marshaler]())
	switch {
	case t.Kind() == reflect.Pointer:
		return "*" + code(t.Elem())
	case named: // A list that is a message of its own: its items are field 1.
		return "list"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "bytes"
	case t.Kind() == reflect.Slice:
		return "[]" + code(t.Elem())
	case t.Kind() == reflect.Map:
		return "{}" + code(t.Elem())
	case t.Kind() == reflect.Struct:
		message(t, "")
		return name(t)
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "bool"
	case t.Kind() == reflect.Float64:
		return "double"
	case t.Kind() == reflect.Int32, t.Kind() == reflect.Int64:
		return "int"
	}
	panic("no code for " + t.String())
}

// message writes the line of a struct; version is set for what may be a whole body.
func message(t reflect.Type, version string) {
	key := name(t)
	if _, ok := lines[key]; ok && version == "" {
		return
	}
	lines[key] = ""
	line := key
	if version != "" {
		line += "@" + version
	}
	for i := range t.NumField() {
		field := t.Field(i)
		proto := strings.Split(field.Tag.Get("protobuf"), ",")
		tag := strings.Split(field.Tag.Get("json"), ",")
		if len(proto) < 2 || tag[0] == "-" {
			continue
		}
		jsonName, mark := tag[0], "!"
		for _, option := range tag[1:] {
			switch option {
			case "omitempty":
				mark = ""
			case "inline":
				jsonName, mark = ".", ""
			}
		}
		line += fmt.Sprintf(" %s=%s:%s%s", jsonName, proto[1], code(field.Type), mark)
	}
	lines[key] = line
}

// filler sets every field of every struct once, with values that are all different.
type filler struct {
	seen map[reflect.Type]bool
	next int64
}

func (f *filler) fill(v reflect.Value) {
	f.next++
	switch one := v.Addr().Interface().(type) {
	case *resource.Quantity:
		*one = *resource.NewQuantity(f.next, resource.DecimalSI)
		return
	case *metav1.Time:
		*one = metav1.Unix(1700000000+f.next, 0)
		return
	case *metav1.MicroTime:
		*one = metav1.NewMicroTime(time.Unix(1700000000+f.next, 123456000))
		return
	case *metav1.FieldsV1:
		one.Raw = []byte(`{"f:spec":{}}`)
		return
	case *runtime.RawExtension:
		one.Raw = []byte(`{"raw":[null,1]}`)
		return
	case *extensions.JSON:
		one.Raw = []byte(`{"json":true}`)
		return
	case *intstr.IntOrString:
		*one = intstr.FromInt32(int32(f.next))
		if f.next%2 == 0 {
			*one = intstr.FromString(fmt.Sprintf("%d%%", f.next))
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if t := v.Type().Elem(); t.Kind() != reflect.Struct || !f.seen[t] {
			v.Set(reflect.New(t))
			f.fill(v.Elem())
		}
	case reflect.Struct:
		if f.seen[v.Type()] {
			return
		}
		f.seen[v.Type()] = true
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "TypeMeta" {
				f.fill(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(fmt.Sprintf("bytes-%d", f.next)))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(v.Index(0))
		f.fill(v.Index(1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key)
		f.fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d", f.next))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(f.next) + 0.5)
	default:
		v.SetInt(f.next)
	}
}

// vectors prints objects of all kinds in both encodings, for the decoder's test.
func vectors() {
	var all []schema.GroupVersionKind
	for gvk, t := range scheme.Scheme.AllKnownTypes() {
		if isServed(gvk, t) {
			all = append(all, gvk)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].String() < all[j].String() })
	f := filler{seen: map[reflect.Type]bool{}}
	for _, gvk := range all {
		object, err := scheme.Scheme.New(gvk)
		check(err)
		f.fill(reflect.ValueOf(object).Elem())
		object.GetObjectKind().SetGroupVersionKind(gvk)
		var wire bytes.Buffer
		check(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(object, &wire))
		check(json.NewEncoder(os.Stdout).Encode(map[string]any{"protobuf": wire.Bytes(), "json": object}))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func isServed(gvk schema.GroupVersionKind, t reflect.Type) bool {
	return slices.Contains(served, gvk.GroupVersion().String()) && !strings.HasSuffix(gvk.Kind, "List") &&
		t.PkgPath() != reflect.TypeFor[metav1.Time]().PkgPath()
}

func main() {
	check(extensions.AddToScheme(scheme.Scheme))
	if len(os.Args) > 1 && os.Args[1] == "vectors" {
		vectors()
		return
	}
	for gvk, t := range scheme.Scheme.AllKnownTypes() {
		if isServed(gvk, t) {
			message(t, gvk.GroupVersion().String())
		}
	}
	message(reflect.TypeFor[metav1.DeleteOptions](), "*")
	all := make([]string, 0, len(lines))
	for _, line := range lines {
		all = append(all, line)
	}
	sort.Strings(all)
	fmt.Fprintln(os.Stdout, `# How kinds are encoded in protobuf; generated by tools/protobuf from the Go types of Kubernetes v1.34 (Apache-2.0).
# One message a line: NAME[@API-VERSION] JSON-NAME=NUMBER:TYPE ... A name that is a dot: its fields are those of the
# message around it. *T is kept though it is zero, T! too; []T is a list, {}T a map.`)
	for _, line := range all {
		fmt.Println(line)
	}
}
