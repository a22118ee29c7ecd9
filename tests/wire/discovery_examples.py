"""Answers of Consul, Nacos and Kubernetes, from their documentation and from live systems.

Fields that no reader of addresses needs are kept where they are, a few long ones are cut.
"""

# https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service,
# "Sample Response" (hashicorp/consul, website/content/api-docs/health.mdx).
CONSUL = b"""[{
  "Node": {"ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "foobar", "Address": "10.1.10.12",
    "Datacenter": "dc1", "TaggedAddresses": {"lan": "10.1.10.12", "wan": "10.1.10.12"},
    "Meta": {"instance_type": "t2.medium"}},
  "Service": {"ID": "redis", "Service": "redis", "Tags": ["primary"], "Address": "10.1.10.12",
    "TaggedAddresses": {"lan": {"address": "10.1.10.12", "port": 8000}, "wan": {"address": "198.18.1.2", "port": 80}},
    "Meta": {"redis_version": "4.0"}, "Port": 8000, "Weights": {"Passing": 10, "Warning": 1}, "Namespace": "default"},
  "Checks": [
    {"Node": "foobar", "CheckID": "service:redis", "Name": "Service 'redis' check", "Status": "passing", "Notes": "",
      "Output": "", "ServiceID": "redis", "ServiceName": "redis", "ServiceTags": ["primary"], "Namespace": "default"},
    {"Node": "foobar", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Notes": "",
      "Output": "", "ServiceID": "", "ServiceName": "", "ServiceTags": [], "Namespace": "default"}]}]"""

# `GET /nacos/v1/ns/instance/list` of Nacos 1.x, as users publish it with Spring Cloud.
NACOS_V1 = b"""{"hosts": [{"ip": "192.168.1.117", "port": 8082, "valid": true, "healthy": true, "marked": false,
  "instanceId": "192.168.1.117#8082#HZ#DEFAULT_GROUP@@USER-SERVICE",
  "metadata": {"preserved.register.source": "SPRING_CLOUD"}, "enabled": true, "weight": 1.0, "clusterName": "HZ",
  "serviceName": "DEFAULT_GROUP@@USER-SERVICE", "ephemeral": true}],
  "dom": "DEFAULT_GROUP@@USER-SERVICE", "name": "DEFAULT_GROUP@@USER-SERVICE", "cacheMillis": 10000,
  "lastRefTime": 1684938061774, "checksum": "220811216e5bec9c265e009dd8494daa", "useSpecifiedURL": false,
  "clusters": "", "env": "", "metadata": {}}"""

# `GET /nacos/v2/ns/instance/list` of Nacos 2.x; its first instance as users publish it, the others
# with the fields that make one unusable.
NACOS_V2 = b"""{"code": 0, "message": "success", "data": {"name": "DEFAULT_GROUP@@card", "groupName": "DEFAULT_GROUP",
  "clusters": "", "cacheMillis": 10000, "hosts": [
    {"ip": "192.168.56.1", "port": 8080, "weight": 2.0, "healthy": true, "enabled": true, "ephemeral": true,
      "clusterName": "DEFAULT", "serviceName": "DEFAULT_GROUP@@card",
      "metadata": {"preserved.register.source": "SPRING_CLOUD"}, "instanceHeartBeatInterval": 5000},
    {"ip": "192.168.56.2", "port": 8080, "weight": 1.0, "healthy": false, "enabled": true},
    {"ip": "192.168.56.3", "port": 8080, "weight": 1.0, "healthy": true, "enabled": false},
    {"ip": "192.168.56.4", "port": 8080, "weight": 0.0, "healthy": true, "enabled": true}],
  "lastRefTime": 1684938061774, "checksum": "", "allIPs": false, "reachProtectionThreshold": false, "valid": true}}"""

# `GET /nacos/v3/client/ns/instance/list` of Nacos 3.x: the instances are the data.
NACOS_V3 = b"""{"code": 0, "message": "success", "data": [{"ip": "127.0.0.1", "port": 18080, "weight": 1.0,
  "healthy": true, "enabled": true, "ephemeral": true, "clusterName": "DEFAULT",
  "serviceName": "DEFAULT_GROUP@@quickstart.order-service", "metadata": {},
  "instanceHeartBeatTimeOut": 15000, "ipDeleteTimeout": 30000}]}"""
NACOS_ERROR = b'{"code": 20004, "message": "resource not found", "data": "service not found"}'

# `GET /apis/discovery.k8s.io/v1/endpointslices` of a cluster, without `managedFields`: from the
# tests of VictoriaMetrics (lib/promscrape/discovery/kubernetes/endpointslice_test.go).
KUBERNETES = b"""{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
  "metadata": {"selfLink": "/apis/discovery.k8s.io/v1/endpointslices", "resourceVersion": "1177"},
  "items": [{"metadata": {"name": "kubernetes", "namespace": "default",
      "uid": "a60d9173-5fe4-4bc3-87a6-269daee71f8a", "resourceVersion": "159", "generation": 1,
      "creationTimestamp": "2020-09-07T14:27:22Z", "labels": {"kubernetes.io/service-name": "kubernetes"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["172.18.0.2"], "conditions": {"ready": true}}],
    "ports": [{"name": "https", "protocol": "TCP", "port": 6443}]}]}"""
# Of the same: a service with several ports.
KUBERNETES_PORTS = b"""{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
  "metadata": {"resourceVersion": "1177"},
  "items": [{"metadata": {"name": "kube-dns-22mvb", "generateName": "kube-dns-", "namespace": "kube-system",
      "labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": "kube-dns"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.244.0.3"], "conditions": {"ready": true},
      "targetRef": {"kind": "Pod", "namespace": "kube-system", "name": "coredns-66bff467f8-z8czk",
        "uid": "36a545ff-dbba-4192-a5f6-1dbb0c21c73d", "resourceVersion": "603"},
      "topology": {"kubernetes.io/hostname": "kind-control-plane"}}],
    "ports": [{"name": "http", "protocol": "TCP", "port": 8080}, {"name": "metrics", "protocol": "TCP", "port": 9153},
      {"name": "dns", "protocol": "UDP", "port": 53}]}]}"""
